"""Reading and checking the files of a revision."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.core.images import read_rgb
from cocoseg.experiments.revisions import WORKSPACE, experiments, find_revisions, oriented_rgb
from tests.revisions import DirectoryRevision, write_revision

LABELS = np.zeros((40, 60), np.uint8)


@pytest.fixture
def revision(tmp_path: Path) -> DirectoryRevision:
    return write_revision(
        tmp_path / "run", {"a": LABELS}, {"a": LABELS}, trained_on=["b", "c\x0bd"], epochs=2
    )


def test_a_run_has_its_counts_and_training_images(revision: DirectoryRevision) -> None:
    run = revision.scored_run()
    assert run.name == "run"
    assert run.counts.confusions == {"a": [[2400, 0, 0], [0, 0, 0], [0, 0, 0]]}
    assert run.trained_on == {"b", "c\x0bd"}


@pytest.mark.parametrize(
    "change",
    [
        {"confusions": {"a": [[1, 0], [0, 1]]}},
        {"confusions": {"a": [[1, 0, 0], [0, 1, 0], [0, 0]]}},
        {"confusions": {}, "ground_truths": {}},
        {"ground_truths": {"b": "hash"}},
        {"ground_truths": {}},
        {"classes": "cat"},
    ],
)
def test_inconsistent_counts_are_an_error(revision: DirectoryRevision, change: object) -> None:
    path = revision.directory / "metrics/test_images.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"run: metrics/test_images\.json is damaged"):
        revision.scored_run()


def test_counts_of_an_earlier_version_are_an_error_with_a_remedy(
    revision: DirectoryRevision,
) -> None:
    path = revision.directory / "metrics/test_images.json"
    path.write_text(path.read_text().replace("ground_truths", "truths"))
    with pytest.raises(UserError) as raised:
        revision.scored_run()
    assert "from an earlier version of this project" in str(raised.value)
    assert "`git checkout 0123456`" in str(raised.value)
    command = "`dvc repro --force --single-item evaluate`"
    assert command in str(raised.value)
    workspace = DirectoryRevision(WORKSPACE, None, revision.directory)
    with pytest.raises(UserError) as raised:
        workspace.scored_run()
    assert command in str(raised.value) and "git checkout" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "image_id,annotation_id\n1,2\n"])
def test_damaged_label_errors_are_an_error(revision: DirectoryRevision, content: str) -> None:
    (revision.directory / "metrics/label_errors.csv").write_text(content)
    with pytest.raises(UserError, match=r"metrics/label_errors\.csv is damaged"):
        revision.label_errors()


def test_outdated_parameters_are_those_of_the_scores(revision: DirectoryRevision) -> None:
    lock = "stages:\n" + "".join(
        f"  {stage}:\n    params:\n      params.yaml:\n        {params}\n"
        for stage, params in {
            "train": "train: {epochs: 1, lr: 0.1}",
            "evaluate": "evaluate.tiles: full",
            "export": "export.opset: 17",
            "report": "report.title: x",
        }.items()
    )
    (revision.directory / "dvc.lock").write_text(lock + "  download:\n    cmd: x\n")
    assert revision.outdated_params() == ["train.epochs=1", "evaluate.tiles=full"]


def test_an_image_is_found_by_its_stem_with_any_extension_or_none(
    revision: DirectoryRevision,
) -> None:
    images = revision.directory / "data/images"
    for number, name in enumerate(("ab.png", "x", "y.tar.png")):
        color = (50 + number, 0, 0)
        Image.new("RGB", (60, 40), color).save(images / name, format="PNG")
        stem = name.removesuffix(".png")
        assert revision.image(stem, LABELS)[0, 0].tolist() == list(color)
    with pytest.raises(UserError, match=r"run has no data/images/nowhere\.jpg"):
        revision.image("nowhere", LABELS)


def test_a_damaged_mask_is_an_error(revision: DirectoryRevision) -> None:
    path = revision.directory / "data/masks/a.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"run: data/masks/a\.png is damaged; remove it"):
        revision.ground_truth("a")


def test_an_image_of_16_bits_has_the_pixels_of_read_rgb(tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    with Image.open(tmp_path / "gray.png") as image:
        assert np.array_equal(oriented_rgb(image, LABELS), read_rgb(tmp_path / "gray.png"))


def test_the_exif_orientation_is_applied_only_if_the_labels_follow_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:10] = 255
    Image.fromarray(stored).save(tmp_path / "rotated.png", exif=exif)
    with Image.open(tmp_path / "rotated.png") as image:
        assert np.array_equal(oriented_rgb(image, LABELS), stored)
        assert np.array_equal(oriented_rgb(image, LABELS.T), np.rot90(stored, -1))


def test_outside_a_project_the_error_says_where_to_run_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for find in (lambda: find_revisions("main"), lambda: find_revisions(WORKSPACE), experiments):
        with pytest.raises(UserError, match="no DVC project here"):
            find()
