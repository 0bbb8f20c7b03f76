"""Train the network and keep its best epoch.

Reads   data/images/, data/masks/, data/splits/{train,val}.txt
Writes  models/model.safetensors, metrics/train/
Run     python -m stages.train
"""

from pathlib import Path
from typing import Any

from cocoseg.dataset import read_pairs
from cocoseg.devices import choose_device
from cocoseg.model import save_model
from cocoseg.params import load_params
from cocoseg.stage import run_stage
from cocoseg.tracking import track
from cocoseg.training import train


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    pairs = {
        name: read_pairs(Path(f"data/splits/{name}.txt"), Path("data/images"), Path("data/masks"))
        for name in ("train", "val")
    }
    device = choose_device(params.runtime.device)
    with track(Path("metrics/train"), params.model_dump(exclude={"runtime"})) as tracker:
        result = train(
            params.filter.classes,
            pairs["train"],
            pairs["val"],
            params.train,
            device=device,
            workers=params.runtime.worker_count(),
            report_epoch=tracker.log_epoch,
        )
        tracker.summarize(result.summary())
    save_model(Path("models/model.safetensors"), result.model, result.card)
    return {"device": str(device), "crops_per_second": result.crops_per_second}


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/train.json"))
