"""`cocoseg runs` and `cocoseg label-errors` on small revisions in directories."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cocoseg.core.files import write_json
from cocoseg.evaluation.label_errors import LabelError, write_label_errors
from cocoseg.experiments import runs
from cocoseg.experiments.revisions import Split
from cocoseg.experiments.runs import (
    label_errors_page,
    label_errors_table,
    rank_together,
    runs_table,
)
from tests.pages import MEASURE, ask_in_browser, check_accessibility, check_print, needs_browser
from tests.revisions import DirectoryRevision, write_revision


def known(monkeypatch: pytest.MonkeyPatch, *revisions: DirectoryRevision) -> None:
    """Make revisions available under their names, and as experiments of the current commit."""
    by_name = {revision.name: [revision] for revision in revisions}
    monkeypatch.setattr(runs, "find_revisions", by_name.__getitem__)
    monkeypatch.setattr(runs, "experiments", lambda: list(revisions))


def write_run(
    directory: Path, sha: str, miou: float | None = None, split: Split = "val", **more: Any
) -> DirectoryRevision:
    write_revision(directory, {}, {}, **more)
    if miou is not None:
        interval = {"low": miou - 0.1, "high": miou + 0.1}
        scores = {"miou": miou, "miou_interval": interval, "images": 60}
        write_json(directory / f"metrics/{split}.json", scores)
    return DirectoryRevision(directory.name, sha, directory)


def test_runs_are_sorted_by_score_below_head_with_their_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(
        monkeypatch,
        write_run(tmp_path / "HEAD", "0", 0.5, epochs=2, scored_with_epochs=2),
        write_run(tmp_path / "unfinished", "1", epochs=3),
        write_run(tmp_path / "worse", "2", 0.4, epochs=4, scored_with_epochs=4),
        write_run(tmp_path / "outdated", "3", 0.6, epochs=2, scored_with_epochs=1),
        write_run(tmp_path / "main", "0", 0.5),  # the commit of HEAD
    )
    expected = [
        "run         validation mean IoU  95% interval    images  changed",
        "HEAD        0.5000               0.400 to 0.600  60",
        "outdated    0.6000               0.500 to 0.700  60      but scored with train.epochs=1",
        "worse       0.4000               0.300 to 0.500  60      train.epochs=4",
        "unfinished  none                 none            none    train.epochs=3",
    ]
    assert runs_table([]).splitlines() == expected
    assert runs_table(["unfinished", "worse", "outdated"]).splitlines() == expected
    assert len(runs_table(["worse"]).splitlines()) == 3


def test_test_scores_are_listed_if_asked_with_the_number_of_models_that_they_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = write_run(tmp_path / "HEAD", "0", 0.5)
    old = write_run(tmp_path / "old", "1", 0.7, split="test")
    known(monkeypatch, head, old)
    chosen = runs_table([]).splitlines()
    assert re.split(r"  +", chosen[1])[:2] == ["HEAD", "0.5000"]
    expected = ["old", "none", "none", "none", "has only test scores: use --split test"]
    assert re.split(r"  +", chosen[2]) == expected
    tested = runs_table([], "test").splitlines()
    assert tested[0].startswith("run   test mean IoU  ")
    assert re.split(r"  +", tested[1])[:2] == ["HEAD", "none"]
    assert re.split(r"  +", tested[2])[:2] == ["old", "0.7000"]
    assert tested[-1].startswith("The commits and experiments of this clone scored 1 model on")


def test_parameters_that_only_one_side_has_are_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, other = (write_run(tmp_path / name, name, 0.5) for name in ("HEAD", "other"))
    (head.directory / "params.yaml").write_text("train:\n  epochs: 1\n  old: 5\n")
    (other.directory / "params.yaml").write_text("train:\n  epochs: 1\n  new: 7\n")
    known(monkeypatch, head, other)
    assert runs_table([]).splitlines()[2].endswith("60      train.old=none, train.new=7")


def error(score: float, annotation_id: int | None, x: int = 5, image_id: int = 1) -> LabelError:
    labels = ("background" if annotation_id is None else "cat", "dog", "wrong class")
    return LabelError(image_id, annotation_id, f"{image_id}.jpg", *labels, score, x, 6, 20, 10, 150)


def test_of_several_reports_of_one_object_the_highest_score_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (write_run(tmp_path / name, name) for name in ("first", "second"))
    known(monkeypatch, first, second)
    missing, other_box = error(0.6, None), error(0.55, None, x=40)
    other_image = error(0.2, 7, image_id=2)
    write_label_errors(
        tmp_path / "first/metrics/label_errors.csv", [error(0.8, 7), missing, other_image]
    )
    write_label_errors(
        tmp_path / "second/metrics/label_errors.csv",
        [error(0.9, 7, x=9), other_box, error(0.5, None)],
    )
    assert rank_together(["first", "second"]) == [
        (error(0.9, 7, x=9), second),
        (missing, first),
        (other_box, second),
        (other_image, first),
    ]
    rows = label_errors_table(rank_together(["first", "second"])).splitlines()
    assert rows[0].startswith("score  kind         annotated   predicted  image  annotation  box")
    assert re.split(r"  +", rows[1]) == [
        *("0.900", "wrong class", "cat", "dog", "1.jpg", "7", "9,6 20x10", "second")
    ]
    assert re.split(r"  +", rows[2])[4:] == ["1.jpg", "5,6 20x10", "first"]
    merged = replace(error(0.9, 7), category="tiger")
    assert "cat (tiger)" in label_errors_table([(merged, first)])


def test_the_page_shows_the_image_the_annotation_and_the_prediction(tmp_path: Path) -> None:
    annotated = np.zeros((40, 60), np.uint8)
    annotated[6:16, 5:25] = 1
    revision = write_revision(tmp_path / "run", {"1": annotated}, {"1": annotated * 2})
    page = label_errors_page([(error(0.9, 7), revision)])
    assert re.findall(r"<figcaption>(.*?)<", page) == ["image", "annotated", "predicted"]
    centers = []
    for uri in re.findall(r'src="data:image/jpeg;base64,(.*?)"', page):
        with Image.open(io.BytesIO(base64.b64decode(uri))) as view:
            centers.append(view.getpixel((view.width // 4, view.height // 4)))
    assert max(centers[0]) - min(centers[0]) < 10  # gray
    assert len({tuple(value // 20 for value in center) for center in centers}) == 3


@needs_browser
def test_the_page_is_readable_on_a_phone_and_in_print(tmp_path: Path) -> None:
    annotated = np.zeros((40, 60), np.uint8)
    annotated[6:16, 5:25] = 1
    revision = write_revision(tmp_path / "run", {"1": annotated}, {"1": annotated * 2})
    page = label_errors_page([(error(0.9, 7), revision)] * 3)
    for dark in (False, True):
        check_accessibility(tmp_path / "checked.html", page, 390, dark=dark)
    assert ask_in_browser(tmp_path / "checked.html", page, MEASURE, 390)[0]["excess"] <= 0
    check_print(tmp_path / "checked.html", page)
