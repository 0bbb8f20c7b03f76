"""Crops and whole photos: reproducible, aligned with their labels, void beyond the border."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.core.seeding import generator
from cocoseg.inference.dataset import WholeImages, batches_of_equal_size, read_samples
from cocoseg.training.augmentation import (
    Augmentation,
    TrainingCrops,
    batches_per_epoch,
    check_training_data,
    training_batches,
)
from tests.samples import COLORS, make_sample


@pytest.mark.parametrize(
    ("size", "width", "height", "kind"),
    [(48, 64, 48, "png"), pytest.param(150, 801, 601, "jpg", id="decoded at 1 to 1/8")],
)
def test_labels_stay_on_the_pixels_that_they_belong_to(
    tmp_path: Path, size: int, width: int, height: int, kind: str
) -> None:
    augmentation = Augmentation(size, crop=40, scale=(0.5, 2.0), color=0.0)
    sample = make_sample(tmp_path, "photo", width, height, kind)
    for draw in range(50):
        crop, crop_labels = augmentation(sample, generator(0, "test", draw))
        expected = torch.from_numpy(COLORS)[
            crop_labels.where(crop_labels != IGNORE_INDEX, 0).long()
        ]
        difference = (crop.permute(1, 2, 0).int() - expected.int()).abs().amax(dim=-1)
        counted = crop_labels != IGNORE_INDEX
        wrong = (difference[counted] > 100).float().mean()
        assert wrong < 0.06, f"draw {draw}"  # blurred borders only


def test_beyond_the_photo_labels_are_void_and_nothing_else_is(tmp_path: Path) -> None:
    augmentation = Augmentation(size=48, crop=48, scale=(0.5, 0.5), color=0.0)
    crop, crop_labels = augmentation(make_sample(tmp_path), generator(0, "test"))
    inside = crop_labels != IGNORE_INDEX
    assert inside.sum() == 24 * 32
    assert (crop[:, ~inside] == 127).all()


def test_color_changes_the_image_and_never_the_labels(tmp_path: Path) -> None:
    sample = make_sample(tmp_path)
    plain = Augmentation(48, 40, (0.5, 2.0), 0.0)(sample, generator(3, "test"))
    vivid = Augmentation(48, 40, (0.5, 2.0), 0.5)(sample, generator(3, "test"))
    assert torch.equal(plain[1], vivid[1])
    assert not torch.equal(plain[0], vivid[0])


@pytest.mark.parametrize(
    ("wanted", "height", "width"),
    [(None, 601, 801), (301, 601, 801), (300, 301, 401), (9, 76, 101)],
)
def test_a_jpeg_is_read_at_the_smallest_size_that_is_enough(
    tmp_path: Path, wanted: int | None, height: int, width: int
) -> None:
    sample = make_sample(tmp_path, width=801, height=601, kind="jpg")
    image, labels = sample.read(shorter_side=wanted)
    assert image.shape == (3, height, width)
    assert labels.shape == (height, width)


def test_a_crop_depends_on_seed_epoch_and_index_only(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, stem) for stem in ("a", "b")]
    augmentation = Augmentation(48, 40, (0.5, 2.0), 0.3)
    crops = TrainingCrops(samples, augmentation, seed=0)
    first = crops[3, 1][0]
    crops[5, 0]
    assert torch.equal(crops[3, 1][0], first)
    assert not torch.equal(crops[4, 1][0], first)
    assert not torch.equal(TrainingCrops(samples, augmentation, seed=1)[3, 1][0], first)


@pytest.mark.parametrize(("length", "batch_size"), [(10, 4), (8, 4), (6, 8)])
def test_every_epoch_visits_images_once_in_an_order_of_its_own(
    length: int, batch_size: int
) -> None:
    batches = list(training_batches(length, batch_size, range(2), seed=0))
    per_epoch = batches_per_epoch(length, batch_size)
    assert len(batches) == 2 * per_epoch
    epochs = [
        [key for batch in part for key in batch]
        for part in (batches[:per_epoch], batches[per_epoch:])
    ]
    for number, keys in enumerate(epochs):
        assert {epoch for epoch, _ in keys} == {number}
        indices = [index for _, index in keys]
        assert len(set(indices)) == len(indices) == min(length, per_epoch * batch_size)
    assert [i for _, i in epochs[0]] != [i for _, i in epochs[1]]


def test_later_epochs_are_the_same_without_the_earlier_ones() -> None:
    whole = list(training_batches(10, 4, range(4), seed=0))
    assert list(training_batches(10, 4, range(2, 4), seed=0)) == whole[4:]


def test_whole_photos_are_resized_by_the_shorter_side_with_labels_as_they_were(
    tmp_path: Path,
) -> None:
    image, labels = WholeImages([make_sample(tmp_path, width=90, height=60)], 32)[0]
    assert image.shape == (3, 32, 48)
    assert labels.shape == (60, 90)


def test_a_very_long_photo_is_squeezed_for_evaluation_as_for_prediction(tmp_path: Path) -> None:
    image, labels = WholeImages([make_sample(tmp_path, width=3000, height=3)], 32)[0]
    assert image.shape == (3, 32, 16 * 32)
    assert labels.shape == (3, 3000)


def test_batches_hold_photos_of_one_size(tmp_path: Path) -> None:
    sizes = [(64, 48), (48, 64), (64, 48), (64, 48)]
    samples = [make_sample(tmp_path, str(i), *size) for i, size in enumerate(sizes)]
    assert batches_of_equal_size(samples, 2) == [[0, 2], [3], [1]]


def test_a_stem_without_files_is_named(tmp_path: Path) -> None:
    make_sample(tmp_path, "a")
    split = tmp_path / "train.txt"
    split.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"images/b\.\* is missing"):
        read_samples(split, tmp_path / "images", tmp_path / "masks")


def test_a_photo_of_another_size_than_its_labels_is_refused(tmp_path: Path) -> None:
    sample = make_sample(tmp_path)
    Image.new("RGB", (10, 10)).save(sample.image)
    with pytest.raises(UserError, match=r"photo\.png"):
        sample.read()


def test_a_split_without_images_names_its_ratio(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split\.ratios\.val: the split has no images"):
        check_training_data({"train": [make_sample(tmp_path)], "val": []}, ["red"], workers=0)


def test_a_class_that_no_training_image_shows_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = {"train": [make_sample(tmp_path)]}
    check_training_data(splits, ["red", "blue", "dog"], workers=0)
    assert [record.getMessage() for record in caplog.records] == [
        "no training image shows a pixel of class dog"
    ]
