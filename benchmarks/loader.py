"""Training crops per second on one core, compared with torchvision's reference.

Ours reads masks from files and resizes only the region of the image that becomes the crop. The
reference rasterizes every annotation at each access and resizes whole images, up to twice their
size. A second comparison uses some of the images at six times their size, as large as those of a
phone: ours decodes large JPEGs at a reduced size, and is compared with decoding them at full size.

    python -m benchmarks.loader --rounds 5
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.recipe import MIRROR, ROOT, prepare
from benchmarks.reference import CocoCrops, ReferenceRecipe
from benchmarks.training import compare
from cocoseg.inference.dataset import Sample
from cocoseg.params.filter import FilterParams
from cocoseg.params.reader import load_params
from cocoseg.params.train import TrainParams
from cocoseg.training.augmentation import Augmentation, TrainingCrops


class FullyDecoded(Sample):
    """A sample whose image is always decoded at full size."""

    def read(self, shorter_side: int | None = None) -> tuple[Tensor, Tensor]:
        return super().read()


def upsample(sample: Sample, directory: Path) -> Sample:
    """The same image and mask at six times their size."""
    larger = Sample(
        directory / f"large_{sample.image.name}", directory / f"large_{sample.mask.name}"
    )
    for source, target, resample in (
        (sample.image, larger.image, Image.Resampling.BICUBIC),
        (sample.mask, larger.mask, Image.Resampling.NEAREST),
    ):
        with Image.open(source) as image:
            image.resize((6 * image.width, 6 * image.height), resample).save(target)
    return larger


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    preset = ROOT / "presets/coco_val2014.yaml"
    params = load_params(preset)
    train = params[TrainParams]
    with tempfile.TemporaryDirectory() as name:
        selection, samples = prepare(Path(name), "train2017", params[FilterParams].classes)
        augmentation = Augmentation(train.size, train.crop, train.scale, train.color_jitter)
        ours = TrainingCrops(samples, augmentation, seed=0)
        recipe = ReferenceRecipe(train.size, train.crop, epochs=1, batch_size=1, seed=0)
        plain = CocoCrops(selection, MIRROR / "train2017", recipe)
        print(machine("torch", "torchvision", "pillow"))
        print(f"crop {train.crop} of {len(samples)} COCO images, one thread")
        print(f"{'crops/s':<14} {'ours':>8} {'plain':>8} {'ratio':>9}")
        compare(
            "loading",
            len(samples),
            options.rounds,
            lambda: [ours[0, index] for index in range(len(samples))],
            lambda: [plain[index] for index in range(len(samples))],
        )
        large = [upsample(sample, Path(name)) for sample in samples[:20]]
        whole = [FullyDecoded(sample.image, sample.mask) for sample in large]
        sides = [TrainingCrops(side, augmentation, seed=0) for side in (large, whole)]
        compare(
            "12 megapixels",
            len(large),
            options.rounds,
            lambda: [sides[0][0, index] for index in range(len(large))],
            lambda: [sides[1][0, index] for index in range(len(large))],
        )


if __name__ == "__main__":
    main()
