"""Write the model as ONNX in several precisions and compare each with PyTorch on the test images.

Reads   models/model.safetensors, data/images/, data/masks/, data/classes.json,
        data/splits/test.txt, data/splits/train.txt (int8 calibration)
Writes  models/onnx/{float32,float16,int8}.onnx, metrics/export.json
Run     python -m stages.export

Everything runs on the CPU, so that the results do not depend on a GPU.
"""

import logging
from pathlib import Path
from typing import Any

import torch

from cocoseg.core.files import atomic_directory, write_json
from cocoseg.core.labels import read_classes
from cocoseg.core.stage import run_stage
from cocoseg.export.label_output import add_labels
from cocoseg.export.onnx import (
    ExportImages,
    compare_networks,
    median_latency,
    require_agreement,
    write_onnx,
)
from cocoseg.export.quantize import choose_calibration, drop_lossy, write_float16, write_int8
from cocoseg.inference.backends import TorchNetwork, open_onnx
from cocoseg.inference.dataset import read_samples
from cocoseg.models.weights import load_model, require_same_classes
from cocoseg.params.export import ExportParams
from cocoseg.params.reader import load_params


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    export = params[ExportParams]
    limits = export.max_loss.model_dump()
    torch.set_num_threads(export.threads)
    model, card = load_model(Path("models/model.safetensors"))
    require_same_classes(card.classes, read_classes(Path("data/classes.json")))
    train, test = (
        read_samples(Path(f"data/splits/{name}.txt"), Path("data/images"), Path("data/masks"))
        for name in ("train", "test")
    )
    final = Path("models/onnx")
    in_float = {}
    with atomic_directory(final) as directory:
        paths = {str(name): directory / f"{name}.onnx" for name in export.variants}
        write_onnx(paths["float32"], model, card, export.opset, export.fixed_size)
        if "float16" in paths:
            write_float16(paths["float32"], paths["float16"])
        if "int8" in paths:
            chosen = choose_calibration(train, export.calibration_images)
            logging.info("int8: calibrating on %d training images", len(chosen))
            in_float["int8"] = write_int8(
                paths["float32"],
                paths["int8"],
                ExportImages(chosen, card.size, export.fixed_size),
                max_loss=limits["int8"],
                threads=export.threads,
            )
        if export.output != "logits":
            for path in paths.values():
                add_labels(path, keep_logits=export.output == "both")
        ours = TorchNetwork(model, card, torch.device("cpu"))
        onnx = {name: open_onnx(path, threads=export.threads) for name, path in paths.items()}
        images = ExportImages(test, card.size, export.fixed_size)
        results = compare_networks(ours, onnx, images, export.batch_size)
        require_agreement(results["float32"], final / "float32.onnx", limits["float32"])
        variants = drop_lossy(directory, results, limits, final)
    for name, layers in in_float.items():
        variants[name]["in_float"] = layers
    summary = {"images": len(test), "opset": export.opset, "variants": variants}
    write_json(Path("metrics/export.json"), summary)
    for name, variant in variants.items():
        if variant["written"]:
            megabytes = variant["bytes"] / 1e6
            gain = 0 - variant["loss"]
            logging.info("%s/%s.onnx: %.1f MB, mean IoU %+.4f", final, name, megabytes, gain)
    image, ground_truth = images[0]
    height, width = ground_truth.shape
    latency = median_latency({"pytorch": ours, **onnx}, image[None], (height, width))
    return {"device": "cpu", "threads": export.threads, "latency_ms": latency}


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/export.json"))
