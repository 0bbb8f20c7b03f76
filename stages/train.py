"""Train the network and keep its best epoch; an interrupted run goes on where it was.

Reads   data/images/, data/masks/, data/splits/{train,val}.txt, data/classes.json
Writes  models/model.safetensors, metrics/train/
Run     python -m stages.train
        torchrun --nproc-per-node 4 -m stages.train   (which train.processes: 4 does by itself)
"""

import json
import os
from pathlib import Path
from typing import Any

from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage, shared_folder
from cocoseg.learning.checkpoint import CheckpointFile, fingerprint
from cocoseg.learning.crops import check_training_data
from cocoseg.learning.distributed import process_group, rank, relaunch, started_by_torchrun
from cocoseg.learning.tracking import track
from cocoseg.learning.training import train
from cocoseg.network.devices import choose_device, enough_memory
from cocoseg.network.model import save_model
from cocoseg.network.photos import read_pairs


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    if params.train.processes > 1 and not started_by_torchrun():
        relaunch("stages.train", params.train.processes)
    device = choose_device(params.runtime.device, shared_folder("devices"))
    splits = {
        name: read_pairs(Path(f"data/splits/{name}.txt"), Path("data/images"), Path("data/masks"))
        for name in ("train", "val")
    }
    workers = params.runtime.worker_count()
    classes = json.loads(Path("data/classes.json").read_text(encoding="utf-8"))
    read = [file for pairs in splits.values() for pair in pairs for file in pair.files()]
    weights = Path(params.train.weights)
    checkpoint = CheckpointFile(
        shared_folder("checkpoints"),
        fingerprint(
            {"train": params.train.model_dump(), "classes": classes},
            [*read, weights] if weights.is_file() else read,
        ),
    )
    with (
        enough_memory("lower train.batch_size or train.crop"),
        process_group(device),
        track(
            Path("metrics/train"),
            params.model_dump(),
            classes,
            run_id=checkpoint.fingerprint,
            active=rank() == 0,
        ) as tracker,
    ):
        check_training_data(splits, classes, workers)
        result = train(
            classes,
            splits["train"],
            splits["val"],
            params.train,
            device=device,
            workers=workers,
            checkpoint=checkpoint,
            report_epoch=tracker.log_epoch,
            report_predictions=tracker.log_predictions,
        )
        tracker.summarize(result.summary())
        if rank() == 0:
            save_model(Path("models/model.safetensors"), result.model, result.card)
            tracker.log_model(Path("models/model.safetensors"))
            checkpoint.remove()
    return {"device": str(device), "crops_per_second": result.crops_per_second}


if __name__ == "__main__":
    first = os.environ.get("RANK", "0") == "0"
    run_stage(main, Path("metrics/machine/train.json") if first else None)
