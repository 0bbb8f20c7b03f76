"""Size, loss and latency of the ONNX files, and what each part of the int8 code gains.

    python -m benchmarks.export_variants [--networks deeplabv3_mobilenet_v3_large]

Trains networks on real images as `benchmarks.networks` does, exports them, and prints for each file
its size, the mean IoU that it loses on images that the training has not seen, and the median
milliseconds of an image on one thread; the files take turns. Besides the files of the export stage:

all layers   int8 without a search for layers to leave in float32, as are the following
static       int8 by ONNX Runtime's `quantize_static`, with weights of 7 bits per channel
no gates     int8 with hard-sigmoid and hard-swish in float32
no padding   int8 with depthwise convolutions of any number of channels
"""

import argparse
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
from onnxruntime.quantization import QuantType, quantize_static

from benchmarks.machine import machine
from benchmarks.networks import Candidate, fit
from benchmarks.recipe import CLASSES, CPU, prepare
from cocoseg.export import quantize
from cocoseg.export.onnx import ExportImages, compare_networks, median_latency, write_onnx
from cocoseg.inference.backends import TorchNetwork, load_onnx, open_onnx
from cocoseg.inference.dataset import Sample
from cocoseg.training.trainer import TrainingResult

NETWORKS = (
    "lraspp_mobilenet_v3_large",
    "deeplabv3plus_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large",
)
SIZES = ((192, 256), (520, 693))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("torch", "onnxruntime"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        samples = prepare(directory, "train2017", CLASSES)[1]
        others = prepare(directory, "val2017", CLASSES)[1]
        for architecture in options.networks:
            trained = fit(Candidate(architecture, None, "matting"), 0, samples, directory)
            paths = export(trained, samples, directory / architecture)
            report(trained, paths, others, options.repeats)


def export(trained: TrainingResult, samples: list[Sample], directory: Path) -> dict[str, Path]:
    """Write all files; return them by name."""
    directory.mkdir()
    names = ("float32", "float16", "int8", "all layers", "static", "no gates", "no padding")
    paths = {name: directory / f"{name}.onnx" for name in names}
    float32 = paths["float32"]
    write_onnx(float32, trained.model, trained.card, opset=18)
    quantize.write_float16(float32, paths["float16"])
    images = ExportImages(quantize.choose_calibration(samples, 64), trained.card.size)
    in_float = quantize.write_int8(float32, paths["int8"], images, max_loss=0.01, threads=1)
    print(f"int8: layers in float32: {', '.join(in_float) or 'none'}", flush=True)
    quantize.write_int8(float32, paths["all layers"], images, max_loss=1, threads=1)
    with patch.multiple(quantize, _with_integer_gates=lambda model: model, _GATES=[]):
        quantize.write_int8(float32, paths["no gates"], images, max_loss=1, threads=1)
    with patch.object(quantize, "_with_wide_depthwise", lambda model: model):
        quantize.write_int8(float32, paths["no padding"], images, max_loss=1, threads=1)
    quantize_static(
        float32,
        paths["static"],
        quantize._Reader(open_onnx(float32, threads=1), [images[i] for i in range(len(images))]),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
    return paths


def report(
    trained: TrainingResult, paths: dict[str, Path], samples: list[Sample], repeats: int
) -> None:
    networks = {name: load_onnx(path, threads=1) for name, path in paths.items()}
    images = ExportImages(samples, trained.card.size)
    agreement = compare_networks(
        TorchNetwork(trained.model, trained.card, CPU), networks, images, 4
    )
    taken = {}
    for height, width in SIZES:
        generator = torch.Generator().manual_seed(0)
        shape = (1, 3, height, width)
        image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        taken[height] = median_latency(networks, image, (height, width), repeats)
    print(trained.card.architecture)
    for name, path in paths.items():
        size, whole = path.stat().st_size, paths["float32"].stat().st_size
        speeds = [
            f"{found[name]:6.1f} ms ({found['float32'] / found[name]:.2f})"
            for found in taken.values()
        ]
        print(
            f"  {name:<10} {size / 1e6:5.1f} MB ({size / whole:.3f})  mean IoU "
            f"{agreement[name].miou:.4f}, lost {agreement[name].loss:+.4f}  {'  '.join(speeds)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
