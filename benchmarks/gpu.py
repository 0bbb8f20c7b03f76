"""What only a GPU can tell, in one go: the tests of training on it, speed, memory, what bounds it.

    python -m benchmarks.gpu | tee gpu.txt            some ten minutes

The tests (`TEST_DEVICE`) ask that two trainings on it end with the same bytes, interrupted and not,
that bfloat16 learns as well, and that torchrun's processes, one a GPU, compute what one does. Then
images a second and peak memory beside the plain loop, in float32 and bfloat16, compiled and not;
where a step's time goes; and crops a second that one core loads, which times the cores (less one)
must be more than the GPU takes. Only the last wants `../shared/coco-mirror`.

    python -m benchmarks.gpu --device cpu --crop 64 --batch-size 2 --rounds 1

tries the commands without one. It ends with an error if any of them does.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator

from tests.mirror import MIRROR

TESTS = "tests/learning/test_training.py", "tests/learning/test_distributed.py"


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
    parser.add_argument("--batch-size", type=int, default=16, help="the COCO presets'")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="in a row, in each round")
    options = parser.parse_args()
    failed = []
    for command in commands(options):
        line = f"python -m {' '.join(command)}"
        print(f"\n$ {line}", flush=True)
        environment = {**os.environ, "TEST_DEVICE": options.device}
        if subprocess.run([sys.executable, "-m", *command], env=environment).returncode:
            failed.append(f"error: failed: {line}")
    sys.exit("\n".join(failed) or None)


if __name__ == "__main__":
    main()
