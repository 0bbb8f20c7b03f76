"""Copy the file from which training starts, if `train.weights` names a file or a revision.

Reads   weights/, or the model of a revision
Writes  models/initial/, which is empty if the weights are not a file
Run     python -m stages.initial_weights
"""

import os
from pathlib import Path

from cocoseg.core.stage import run_stage
from cocoseg.params.reader import load_params
from cocoseg.params.train import TrainParams
from cocoseg.sources.commits import copy_initial_weights


def main() -> None:
    weights = load_params(Path("params.yaml"))[TrainParams].weights
    # DVC's queue and --temp run stages in a temporary copy without the experiments.
    project = Path(os.environ.get("DVC_ROOT", "."))
    copy_initial_weights(
        weights, "models/model.safetensors", Path("models/initial"), project=project
    )


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/initial_weights.json"))
