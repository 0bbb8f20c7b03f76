"""Size and latency of the ONNX files, relative to float32.

    python -m benchmarks.export_variants [--models models/onnx] [--threads 1] [--size 192 256]
    python -m benchmarks.export_variants --architectures --size 520 693

Prints medians; the files take turns on one image. Their scores are in `metrics/export.json`. With
`--architectures`, the files are float32 models of every architecture with random weights.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.machine import machine
from cocoseg.export.onnx import median_latency, write_onnx
from cocoseg.inference.backends import load_onnx
from cocoseg.models.networks import BACKBONES, ModelCard, build_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("models/onnx"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256))
    parser.add_argument("--architectures", action="store_true")
    options = parser.parse_args()
    if options.architectures:
        with tempfile.TemporaryDirectory() as directory:
            for architecture in BACKBONES:
                _write_model(Path(directory, f"{architecture}.onnx"), architecture)
            _measure(Path(directory), options, repeats=10, reference="lraspp_mobilenet_v3_large")
    else:
        _measure(options.models, options, repeats=100, reference="float32")


def _write_model(path: Path, architecture: str) -> None:
    torch.manual_seed(0)
    names = ("background", *(f"class {number}" for number in range(1, 6)))
    card = ModelCard(architecture, names, 520)
    write_onnx(path, build_model(architecture, len(names), auxiliary=False), card, opset=18)


def _measure(models: Path, options: argparse.Namespace, repeats: int, reference: str) -> None:
    paths = {path.stem: path for path in sorted(models.glob("*.onnx"))}
    networks = {name: load_onnx(path, threads=options.threads) for name, path in paths.items()}
    height, width = options.size
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, height, width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    taken = median_latency(networks, images, (height, width), repeats=repeats)
    print(machine("onnxruntime"))
    for name, path in paths.items():
        size = path.stat().st_size
        ratio = size / paths[reference].stat().st_size
        faster = taken[reference] / taken[name]
        print(
            f"{name:<32} {size:>12,} bytes ({ratio:.3f})  "
            f"{taken[name]:6.2f} ms ({faster:.2f} times)"
        )


if __name__ == "__main__":
    main()
