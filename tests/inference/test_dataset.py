"""Samples as tensors, and their batches."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.labels import read_mask
from cocoseg.inference.batches import batches_of_equal_size, load_batches
from cocoseg.inference.dataset import MAX_ASPECT, Sample, WholeImages, read_samples
from tests.samples import COLORS, make_sample


@pytest.mark.parametrize(
    ("shorter_side", "height", "width"),
    [(None, 607, 801), (304, 607, 801), (303, 304, 401), (9, 76, 101)],
)
def test_a_jpeg_is_decoded_at_the_smallest_sufficient_size_with_a_matching_mask(
    tmp_path: Path, shorter_side: int | None, height: int, width: int
) -> None:
    sample = make_sample(tmp_path, width=801, height=607, kind="jpg")
    image, labels = sample.read(shorter_side=shorter_side)
    assert image.shape == (3, height, width)
    rows = ((torch.arange(height) + 0.5) * 607 / height).long()
    columns = ((torch.arange(width) + 0.5) * 801 / width).long()
    assert torch.equal(labels, torch.from_numpy(read_mask(sample.mask))[rows][:, columns])
    expected = torch.from_numpy(COLORS)[labels.long()].permute(2, 0, 1)
    different = (image.int() - expected.int()).abs().amax(dim=0) > 100
    assert different.float().mean() < 0.02  # only blurred borders


def test_images_are_resized_by_the_shorter_side_and_labels_keep_their_size(tmp_path: Path) -> None:
    image, labels = WholeImages([make_sample(tmp_path, width=90, height=60)], 32)[0]
    assert image.shape == (3, 32, 48)
    assert labels.shape == (60, 90)


@pytest.mark.parametrize(("width", "height"), [(3000, 3), (3, 3000)])
def test_a_very_long_image_is_squeezed(tmp_path: Path, width: int, height: int) -> None:
    image, labels = WholeImages([make_sample(tmp_path, width=width, height=height)], 32)[0]
    assert sorted(image.shape) == [3, 32, MAX_ASPECT * 32]
    assert (image.shape[2] > image.shape[1]) is (width > height)
    assert labels.shape == (height, width)


def test_the_images_of_a_batch_have_the_same_size(tmp_path: Path) -> None:
    sizes = [(64, 48), (48, 64), (64, 48), (64, 48)]
    samples = [make_sample(tmp_path, str(i), *size) for i, size in enumerate(sizes)]
    assert [sample.size() for sample in samples] == [size[::-1] for size in sizes]
    assert batches_of_equal_size(samples, 2) == [[0, 2], [3], [1]]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_loading_process_is_one_line(tmp_path: Path, workers: int) -> None:
    sample = make_sample(tmp_path)
    sample.image.unlink()
    dataset = WholeImages([sample], 32)
    loader = DataLoader(dataset, batch_sampler=[[0]], num_workers=workers)
    with pytest.raises(MissingFileError, match=rf"^{sample.image} not found$"):
        list(load_batches(loader))


def test_the_files_of_a_split_are_found_and_missing_ones_reported(tmp_path: Path) -> None:
    expected = [make_sample(tmp_path, stem) for stem in ("b", "a")]
    make_sample(tmp_path, "other")
    split, images, masks = tmp_path / "train.txt", tmp_path / "images", tmp_path / "masks"
    split.write_text("b\na\n")
    assert read_samples(split, images, masks) == expected
    (masks / "a.png").unlink()
    with pytest.raises(UserError, match=r"masks/a\.png is missing but listed in .*train\.txt"):
        read_samples(split, images, masks)
    split.write_text("b\nc\n")
    with pytest.raises(UserError, match=r"images/c\.\* is missing"):
        read_samples(split, images, masks)


def test_an_image_of_another_size_than_its_mask_is_refused(tmp_path: Path) -> None:
    sample: Sample = make_sample(tmp_path)
    Image.new("RGB", (10, 10)).save(sample.image)
    with pytest.raises(UserError, match=r"image\.png"):
        sample.read()
