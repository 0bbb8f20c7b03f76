"""Time and peak memory of `cocoseg predict --tiles` on an image of 100 megapixels.

Predicts 12,000 x 8,400 random pixels, as JPEG and PNG, in PyTorch and ONNX Runtime. Requires
`models/` of a finished run.

    python -m benchmarks.large_images
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import machine, run_cocoseg


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", nargs=2, type=int, default=[12_000, 8_400])
    parser.add_argument("--tiles", default="full")
    parser.add_argument("--models", type=Path, default=Path("models"))
    options = parser.parse_args()
    print(machine("torch", "onnxruntime"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        coarse = np.random.default_rng(0).integers(0, 256, (84, 120, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize(options.size)
        image.save(directory / "image.jpg")
        image.save(directory / "image.png", compress_level=1)
        for model in ("model.safetensors", "onnx/float32.onnx"):
            for file in ("image.jpg", "image.png"):
                command = ["predict", directory / file, "--model", options.models / model]
                command += ["--out", directory / "out", "--tiles", options.tiles]
                seconds, _, peak = run_cocoseg(command)
                print(f"{model:<18} {file} {seconds:5.0f} s   peak {peak:,} MiB", flush=True)


if __name__ == "__main__":
    main()
