"""Tests and measurements of training on a GPU; fails if one of its commands fails.

    python -m benchmarks.gpu | tee gpu.txt            # about ten minutes
    python -m benchmarks.gpu --device cpu --crop 64 --batch-size 2 --rounds 1      # without a GPU

1. The tests of training (with `TEST_DEVICE`): two trainings give the same bytes, interrupted or
   not; bfloat16 learns as well; one torchrun process per GPU computes the same as a single process.
2. Images per second and peak memory, compared with the plain loop, in float32 and bfloat16,
   compiled and not.
3. The time of a training step by operation.
4. Crops per second that one core loads, with `../shared/coco-mirror` only. Multiplied by the number
   of cores less one, they must exceed the images per second of training.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator

from tests.mirror import MIRROR

TESTS = "tests/training/test_trainer.py", "tests/training/test_distributed.py"


def commands(options: argparse.Namespace) -> Iterator[list[str]]:
    """The arguments of each `python -m`."""
    yield ["pytest", "-q", *TESTS]
    training = [
        "benchmarks.training",
        *("--device", options.device),
        *("--crop", str(options.crop)),
        *("--batch-size", str(options.batch_size)),
        *("--aux-weight", "0"),
    ]
    for precision in ("float32", "bfloat16"):
        for compiled in ([], ["--compile"]):
            rounds = ["--rounds", str(options.rounds), "--steps", str(options.steps)]
            yield [*training, *rounds, "--precision", precision, *compiled]
    for architecture in ("deeplabv3_mobilenet_v3_large", "deeplabv3plus_mobilenet_v3_large"):
        yield [*training, "--profile", architecture]
    if MIRROR.is_dir():
        yield ["benchmarks.loader", "--rounds", "1"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--crop", type=int, default=480)
    parser.add_argument(
        "--batch-size", type=int, default=16, help="default: that of the COCO presets"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="consecutive steps per round")
    options = parser.parse_args()
    failed = []
    for command in commands(options):
        line = f"python -m {' '.join(command)}"
        print(f"\n$ {line}", flush=True)
        environment = {**os.environ, "TEST_DEVICE": options.device}
        if subprocess.run([sys.executable, "-m", *command], env=environment).returncode:
            failed.append(f"error: `{line}` failed")
    sys.exit("\n".join(failed) or None)


if __name__ == "__main__":
    main()
