"""Train the network and keep its best epoch. An interrupted run resumes after its last epoch.

Reads   data/images/, data/masks/, data/splits/{train,val}.txt, data/classes.json,
        models/initial/
Writes  models/model.safetensors, metrics/train/
Run     python -m stages.train
        torchrun --nproc-per-node 4 -m stages.train   (as train.processes: 4 does)
"""

import os
from pathlib import Path
from typing import Any

from cocoseg.core.labels import read_classes
from cocoseg.core.stage import run_stage, shared_directory
from cocoseg.inference.dataset import read_samples
from cocoseg.models.devices import enough_memory, set_up_device
from cocoseg.models.weights import save_model
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams
from cocoseg.params.train import TrainParams
from cocoseg.training.augmentation import check_training_data
from cocoseg.training.checkpoint import CheckpointFile, explain_more_epochs, fingerprint
from cocoseg.training.distributed import process_group, rank, relaunch, started_by_torchrun
from cocoseg.training.tracking import track
from cocoseg.training.trainer import train


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    train_params, runtime = params[TrainParams], params[RuntimeParams]
    if train_params.processes > 1 and not started_by_torchrun():
        relaunch("stages.train", train_params.processes)
    threads = train_params.threads * train_params.processes
    device = set_up_device(runtime.device, shared_directory("devices"), threads)
    splits = {
        name: read_samples(Path(f"data/splits/{name}.txt"), Path("data/images"), Path("data/masks"))
        for name in ("train", "val")
    }
    workers = runtime.worker_count()
    classes = read_classes(Path("data/classes.json"))
    files = [file for samples in splits.values() for sample in samples for file in sample.files()]
    initial = list(Path("models/initial").iterdir())  # at most one file
    checkpoint = CheckpointFile(
        shared_directory("checkpoints"),
        fingerprint({"train": train_params.model_dump(), "classes": classes}, [*files, *initial]),
    )
    if initial:
        train_params = train_params.model_copy(update={"weights": str(initial[0])})
    with (
        enough_memory("lower train.batch_size or train.crop"),
        process_group(device),
        track(
            Path("metrics/train"),
            params.values,
            classes,
            run_id=checkpoint.fingerprint,
            active=rank() == 0,
        ) as tracker,
    ):
        if rank() == 0:
            explain_more_epochs(params.values["train"], Path("dvc.lock"))
        check_training_data(splits, classes, workers)
        result = train(
            classes,
            splits["train"],
            splits["val"],
            train_params,
            device=device,
            workers=workers,
            checkpoint=checkpoint,
            listener=tracker,
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
