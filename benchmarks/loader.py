"""Training crops a second on one core: decoding and augmentation, ours beside the reference's.

Ours reads the painted label maps and resizes the part of the photo that becomes the crop; the
reference rasterises every annotation anew and resizes whole photos, up to twice their size.

    python -m benchmarks.loader --rounds 5
"""

import argparse
import tempfile
from pathlib import Path

import torch
import yaml

from benchmarks.machine import machine
from benchmarks.recipe import MIRROR, ROOT, prepare
from benchmarks.reference import CocoCrops, ReferenceRecipe
from benchmarks.training import compare
from cocoseg.common.params import Params
from cocoseg.learning.crops import Augmentation, TrainingCrops


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    preset = ROOT / "presets/coco_val2014.yaml"
    params = Params.model_validate(yaml.safe_load(preset.read_text(encoding="utf-8")))
    train = params.train
    with tempfile.TemporaryDirectory() as name:
        selection, pairs = prepare(Path(name), "train2017", params.filter.classes)
        augmentation = Augmentation(train.size, train.crop, train.scale, train.colour)
        ours = TrainingCrops(pairs, augmentation, seed=0)
        recipe = ReferenceRecipe(train.size, train.crop, epochs=1, batch_size=1, seed=0)
        plain = CocoCrops(selection, MIRROR / "train2017", recipe)
        print(machine("torch", "torchvision", "pillow"))
        print(f"crop {train.crop} of {len(pairs)} COCO photos, one thread")
        print(f"{'crops/s':<12} {'ours':>8} {'plain':>8} {'ratio':>9}")
        compare(
            "loading",
            len(pairs),
            options.rounds,
            lambda: [ours[0, index] for index in range(len(pairs))],
            lambda: [plain[index] for index in range(len(pairs))],
        )


if __name__ == "__main__":
    main()
