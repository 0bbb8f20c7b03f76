"""Write the model as ONNX, if it labels the test images as PyTorch does.

Reads   models/model.safetensors; for the check data/images/, data/masks/, data/splits/test.txt
Writes  models/model.onnx, metrics/export.json
Run     python -m stages.export

Everything runs on the CPU, so that the figures do not depend on the machine's GPU.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cocoseg.common.files import atomic_file, write_json
from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage
from cocoseg.deployment.export import (
    compare_networks,
    load_onnx,
    median_latency,
    require_agreement,
    torch_network,
    write_onnx,
)
from cocoseg.network.model import load_model
from cocoseg.network.photos import read_pairs, resize_shorter_side


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    torch.set_num_threads(params.export.threads)
    model, card = load_model(Path("models/model.safetensors"))
    pairs = read_pairs(Path("data/splits/test.txt"), Path("data/images"), Path("data/masks"))
    path = Path("models/model.onnx")
    with atomic_file(path) as temporary:
        write_onnx(temporary, model, card, params.export.opset)
        ours = torch_network(model, card, torch.device("cpu"))
        theirs, _ = load_onnx(temporary, threads=params.export.threads)
        result = compare_networks(ours, theirs, card, pairs, params.export.batch_size)
        require_agreement(result, path)
    write_json(
        Path("metrics/export.json"),
        {**asdict(result), "bytes": path.stat().st_size, "opset": params.export.opset},
    )
    photo, truth = pairs[0].read()
    images = resize_shorter_side(photo, card.size)[None]
    height, width = truth.shape
    latency = median_latency({"pytorch": ours, "onnx": theirs}, images, (height, width))
    return {"device": "cpu", "threads": params.export.threads, "latency_ms": latency}


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/export.json"))
