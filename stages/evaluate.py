"""Score the model on the test images and show what it does with some of them.

Reads   data/images/, data/masks/, data/splits/test.txt, models/model.safetensors
Writes  metrics/test.json, metrics/plots/, metrics/examples/
Run     python -m stages.evaluate
"""

from pathlib import Path
from typing import Any

import torch

from cocoseg.dataset import read_pairs
from cocoseg.devices import choose_device
from cocoseg.evaluation import evaluate, write_confusion_plot, write_examples
from cocoseg.files import atomic_folder, write_json
from cocoseg.model import load_model
from cocoseg.params import load_params
from cocoseg.stage import run_stage


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    torch.set_num_threads(params.evaluate.threads)
    model, card = load_model(Path("models/model.safetensors"))
    pairs = read_pairs(Path("data/splits/test.txt"), Path("data/images"), Path("data/masks"))
    device = choose_device(params.runtime.device)
    result = evaluate(
        model,
        card,
        pairs,
        batch_size=params.evaluate.batch_size,
        workers=params.runtime.worker_count(),
        device=device,
    )
    write_json(Path("metrics/test.json"), result.scores())
    with atomic_folder(Path("metrics/plots")) as folder:
        write_confusion_plot(folder / "confusion.csv", result.confusion, card.classes)
    with atomic_folder(Path("metrics/examples")) as folder:
        write_examples(folder, result, model, card, params.evaluate.examples)
    return {"device": str(device), "images_per_second": result.images_per_second}


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/evaluate.json"))
