"""Size and latency of the ONNX files, relative to float32.

    python -m benchmarks.export_variants [--models models/onnx] [--threads 1] [--size 192 256]

Prints medians; the files take turns on one image. Their scores are in `metrics/export.json`.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.machine import machine
from cocoseg.export.onnx import median_latency
from cocoseg.inference.backends import load_onnx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("models/onnx"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256))
    options = parser.parse_args()
    paths = {path.stem: path for path in sorted(options.models.glob("*.onnx"))}
    networks = {name: load_onnx(path, threads=options.threads) for name, path in paths.items()}
    height, width = options.size
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, height, width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    taken = median_latency(networks, images, (height, width), repeats=100)
    print(machine("onnxruntime"))
    for name, path in paths.items():
        size = path.stat().st_size
        ratio = size / paths["float32"].stat().st_size
        faster = taken["float32"] / taken[name]
        print(
            f"{name:<8} {size:>12,} bytes ({ratio:.3f})  {taken[name]:6.2f} ms ({faster:.2f} times)"
        )


if __name__ == "__main__":
    main()
