"""Training crops: reproducible, aligned with their labels, ignored beyond the image."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX, read_mask, write_mask
from cocoseg.core.seeding import generator
from cocoseg.inference.dataset import Sample
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
def test_labels_stay_aligned_with_the_pixels(
    tmp_path: Path, size: int, width: int, height: int, kind: str
) -> None:
    augmentation = Augmentation(size, crop=40, scale=(0.5, 2.0), color=0.0)
    sample = make_sample(tmp_path, "image", width, height, kind)
    for draw in range(50):
        crop, labels = augmentation(sample, generator(0, "test", draw))
        counted = labels != IGNORE_INDEX
        expected = torch.from_numpy(COLORS)[labels.where(counted, 0).long()]
        difference = (crop.permute(1, 2, 0).int() - expected.int()).abs().amax(dim=-1)
        wrong = (difference[counted] > 100).float().mean()
        assert wrong < 0.06, f"draw {draw}"  # only blurred borders


def test_crops_contain_no_label_that_their_mask_lacks(tmp_path: Path) -> None:
    sample = make_sample(tmp_path)
    write_mask(sample.mask, np.where(read_mask(sample.mask), 200, 0).astype(np.uint8))
    crops = TrainingCrops([sample], Augmentation(48, 40, (0.5, 2.0), 0.0), seed=0)
    labels = {label for epoch in range(20) for label in crops[epoch, 0][1].unique().tolist()}
    assert labels == {0, 200, IGNORE_INDEX}


def test_scales_are_log_uniform_and_half_of_the_crops_are_mirrored(tmp_path: Path) -> None:
    crops = TrainingCrops([make_sample(tmp_path)], Augmentation(48, 128, (0.5, 2.0), 0.0), seed=0)
    labels = [crops[epoch, 0][1] for epoch in range(200)]
    scales = [((found != IGNORE_INDEX).sum().item() / (48 * 64)) ** 0.5 for found in labels]
    assert 0.49 < min(scales) < 0.55 and 1.85 < max(scales) < 2.02
    assert 0.4 < np.mean([scale < 1 for scale in scales]) < 0.6
    columns = [[(found == label).nonzero()[:, 1].max() for label in (1, 2)] for found in labels]
    assert 0.4 < np.mean([first > second for first, second in columns]) < 0.6


def test_crops_reach_both_edges_of_the_image(tmp_path: Path) -> None:
    """47 of 48 rows, of which the first 12 are background."""
    crops = TrainingCrops([make_sample(tmp_path)], Augmentation(48, 47, (1.0, 1.0), 0.0), seed=0)
    background = [(crops[epoch, 0][1] == 0).all(dim=1).sum().item() for epoch in range(20)]
    assert set(background) == {11, 12}


def test_labels_are_ignored_beyond_the_image_and_nowhere_else(tmp_path: Path) -> None:
    augmentation = Augmentation(size=48, crop=48, scale=(0.5, 0.5), color=0.0)
    crop, labels = augmentation(make_sample(tmp_path), generator(0, "test"))
    inside = labels != IGNORE_INDEX
    assert inside.sum() == 24 * 32
    assert (crop[:, ~inside] == 127).all()


def test_color_jitter_changes_the_image_and_not_the_labels(tmp_path: Path) -> None:
    sample = make_sample(tmp_path)
    plain = Augmentation(48, 40, (0.5, 2.0), 0.0)(sample, generator(3, "test"))
    jittered = Augmentation(48, 40, (0.5, 2.0), 0.5)(sample, generator(3, "test"))
    assert torch.equal(plain[1], jittered[1])
    assert not torch.equal(plain[0], jittered[0])
    jitter = TrainingCrops([sample], Augmentation(48, 40, (1.0, 1.0), 0.5), seed=0)
    brightness = [jitter[epoch, 0][0].float().mean() for epoch in range(20)]
    original = sample.read()[0].float().mean()
    assert min(brightness) < 0.8 * original and max(brightness) > 1.2 * original


def test_a_crop_depends_only_on_seed_epoch_and_index(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, stem) for stem in ("a", "b")]
    augmentation = Augmentation(48, 40, (0.5, 2.0), 0.3)
    crops = TrainingCrops(samples, augmentation, seed=0)
    first = crops[3, 1][0]
    crops[5, 0]
    assert torch.equal(crops[3, 1][0], first)
    assert not torch.equal(crops[4, 1][0], first)
    assert not torch.equal(TrainingCrops(samples, augmentation, seed=1)[3, 1][0], first)


@pytest.mark.parametrize(("length", "batch_size"), [(10, 4), (8, 4), (6, 8)])
def test_every_epoch_visits_each_image_once_in_another_order(length: int, batch_size: int) -> None:
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


def test_later_epochs_do_not_depend_on_earlier_ones() -> None:
    all_epochs = list(training_batches(10, 4, range(4), seed=0))
    assert list(training_batches(10, 4, range(2, 4), seed=0)) == all_epochs[4:]


def test_a_split_without_images_is_refused_with_its_ratio(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split\.ratios\.val: the split has no images"):
        check_training_data({"train": [make_sample(tmp_path)], "val": []}, ["red"], workers=0)


def test_classes_without_training_pixels_are_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = {"train": [make_sample(tmp_path)]}
    check_training_data(splits, ["red", "blue", "dog", "cat"], workers=0)
    assert [record.getMessage() for record in caplog.records] == [
        "no training image shows dog, cat. Without examples, the network cannot learn a class; "
        "if a test image shows it, its IoU is about 0 and lowers the mean IoU"
    ]


def paint(sample: Sample, *labels: int) -> Sample:
    """Replace the mask by equal parts of these labels."""
    write_mask(sample.mask, np.repeat(np.array([labels], np.uint8), 60, axis=1))
    return sample


def test_training_without_a_pixel_of_any_class_is_refused(tmp_path: Path) -> None:
    empty = paint(make_sample(tmp_path, "empty"), 0)
    ignored = paint(make_sample(tmp_path, "ignored"), 0, IGNORE_INDEX)
    val = [make_sample(tmp_path, "val")]
    with pytest.raises(UserError, match=r"^train: no .* has a pixel of any class") as e:
        check_training_data({"train": [empty], "val": val}, ["red", "blue"], workers=0)
    assert "mask.crowd" not in str(e.value)
    with pytest.raises(UserError, match=r"any class, .*; set mask\.crowd: paint if .* iscrowd$"):
        check_training_data({"train": [empty, ignored], "val": val}, ["red", "blue"], workers=0)


def test_validation_masks_without_classes_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train, val = make_sample(tmp_path, "train"), make_sample(tmp_path, "val")
    splits = {"train": [train], "val": [val]}
    check_training_data(splits, ["red", "blue"], workers=0)
    assert caplog.messages == []
    paint(val, 0, IGNORE_INDEX)
    check_training_data(splits, ["red", "blue"], workers=0)
    assert caplog.messages == [
        "the validation masks show no class: mean IoU is undefined, and the last epoch is kept"
    ]
