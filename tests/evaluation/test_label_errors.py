"""Planted mistakes are found and named by a network that is always right."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from cocoseg.coco.instances import Annotation, Instances
from cocoseg.coco.rasterize import rasterize
from cocoseg.core.labels import IGNORE_INDEX, Labels, write_mask
from cocoseg.curation.selection import read_exclusions
from cocoseg.evaluation.examples import write_gallery
from cocoseg.evaluation.label_errors import (
    LABEL_ERROR_VIEWS,
    LabelError,
    draw_label_error,
    find,
    rank_label_errors,
    read_label_errors,
    write_label_errors,
)
from cocoseg.evaluation.object_recall import objects_by_stem
from cocoseg.inference.dataset import Sample
from tests.coco_files import painted, select_from
from tests.mirror import mirror_document, needs_mirror

CLASSES = ("background", "cat", "dog")
WIDTH, HEIGHT = 120, 80


def ellipse(left: float, top: float, width: float, height: float) -> list[list[float]]:
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x, y = left + width / 2 * (1 + np.cos(turns)), top + height / 2 * (1 + np.sin(turns))
    return [np.stack([x, y], axis=1).round(2).ravel().tolist()]


GROUND_TRUTH = [
    painted(ellipse(5, 5, 30, 20), 1, id=1),
    painted(ellipse(45, 10, 25, 40), 2, id=2),
    painted(ellipse(75, 40, 40, 30), 1, id=3),
    painted(ellipse(10, 45, 14, 14), 2, id=4),
]


def paint(annotations: Sequence[Annotation]) -> Labels:
    return rasterize(annotations, WIDTH, HEIGHT, overlap="last", crowd="ignore")


def sure_of(labels: Labels, confidence: float = 0.98) -> NDArray[np.float32]:
    """Probabilities (classes, H, W) of a network that sees these labels."""
    others = (1 - confidence) / (len(CLASSES) - 1)
    probabilities = np.full((len(CLASSES), *labels.shape), others, np.float32)
    np.put_along_axis(probabilities, labels[None].astype(int), confidence, axis=0)
    return probabilities


def audit(
    *images: Sequence[Annotation], seen: Sequence[Annotation] = GROUND_TRUTH
) -> list[LabelError]:
    """The suspects among the annotations of images on each of which the network sees `seen`."""
    labels = paint(seen)
    findings = [find(of_image, paint(of_image), labels, sure_of(labels)) for of_image in images]
    names = [(7 + place, f"{place}.jpg") for place in range(len(images))]
    return rank_label_errors(names, findings, CLASSES)


def test_annotations_that_the_network_sees_as_well_are_no_suspects() -> None:
    assert (
        audit(GROUND_TRUTH) == []
        or max(label_error.score for label_error in audit(GROUND_TRUTH)) < 0.1
    )


@needs_mirror
def test_on_real_photos_a_network_that_is_right_suspects_only_what_was_changed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(mirror_document("val2017")))
    right = select_from(file, ("person", "car"), max_instances=30).instances

    def label_errors_of(annotations: list[Annotation]) -> list[LabelError]:
        changed = Instances(right.images, annotations, right.categories)
        objects = objects_by_stem(changed)
        findings = []
        for image in right.images:
            seen, ground_truth = (
                rasterize(
                    [a for a in of_all if a.image_id == image.id],
                    *(image.width, image.height),
                    overlap="last",
                    crowd="ignore",
                )
                for of_all in (right.annotations, annotations)
            )
            seen[seen == IGNORE_INDEX] = 0
            findings.append(find(objects[image.stem], ground_truth, seen, sure_of(seen)))
        images = [(image.id, image.file_name) for image in right.images]
        return rank_label_errors(images, findings, ("background", "person", "car"))

    assert len(right.annotations) > 100
    assert label_errors_of(right.annotations) == []
    place = len(right.annotations) // 2
    wrong = msgspec.structs.replace(right.annotations[place])
    wrong.category_id = 3 - wrong.category_id
    others = right.annotations[:place], right.annotations[place + 1 :]
    (first, *_) = label_errors_of([*others[0], wrong, *others[1]])
    assert (first.kind, first.annotation_id) == ("wrong class", wrong.id)


def test_a_missing_object_is_found_where_it_is() -> None:
    first = audit([GROUND_TRUTH[0], *GROUND_TRUTH[2:]])[0]
    assert (first.kind, first.annotated, first.predicted) == ("missing", "background", "dog")
    assert (first.image_id, first.annotation_id, first.image) == (7, None, "0.jpg")
    assert (first.x, first.y, first.width, first.height) == (45, 10, 25, 40)
    assert first.area == int((paint(GROUND_TRUTH) == 2)[:, 45:70].sum())
    assert first.score > 0.4


def test_an_annotation_of_nothing_is_extra() -> None:
    first = audit([*GROUND_TRUTH, painted(ellipse(90, 5, 20, 20), 2, id=9)])[0]
    assert (first.kind, first.annotation_id) == ("extra", 9)
    assert (first.annotated, first.predicted) == ("dog", "background")
    assert first.score > 0.5


def test_a_wrong_class_is_named() -> None:
    wrong = painted(ellipse(75, 40, 40, 30), 2, id=3)
    first = audit([*GROUND_TRUTH[:2], wrong, GROUND_TRUTH[3]])[0]
    assert (first.kind, first.annotation_id) == ("wrong class", 3)
    assert (first.annotated, first.predicted) == ("dog", "cat")
    assert first.score > 0.5


@pytest.mark.parametrize(
    "outline",
    [ellipse(83, 46, 37, 30), ellipse(75, 40, 20, 30), [[68, 34, 120, 34, 120, 76, 68, 76]]],
    ids=["shifted", "half", "coarse"],
)
def test_a_bad_outline_is_one_suspect(outline: list[list[float]]) -> None:
    bad = painted(outline, 1, id=3)
    label_errors = [s for s in audit([*GROUND_TRUTH[:2], bad, GROUND_TRUTH[3]]) if s.score > 0.2]
    assert [(s.kind, s.annotation_id) for s in label_errors] == [("outline", 3)]


def test_an_annotation_behind_another_and_void_are_not_judged() -> None:
    hidden = painted(ellipse(8, 8, 10, 10), 2, id=8)
    crowd = painted(ellipse(45, 10, 25, 40), 2, id=2, iscrowd=1)
    labels = paint(GROUND_TRUTH)
    ground_truth = paint([hidden, GROUND_TRUTH[0], crowd, *GROUND_TRUTH[2:]])
    findings = find(
        [hidden, GROUND_TRUTH[0], *GROUND_TRUTH[2:]], ground_truth, labels, sure_of(labels)
    )
    assert {f.annotation_id for f in findings} == {1, 3, 4}


def test_the_order_is_that_of_the_scores_whatever_the_order_of_the_annotations() -> None:
    bad = [painted(ellipse(90, 5, 20, 20), 2, id=9), *GROUND_TRUTH[1:]]
    label_errors = audit(bad, GROUND_TRUTH, bad)
    scores = [label_error.score for label_error in label_errors]
    assert scores == sorted(scores, reverse=True)
    assert audit(bad[::-1], GROUND_TRUTH, bad) == label_errors


def test_rows_are_read_as_they_were_written_and_can_be_excluded(tmp_path: Path) -> None:
    label_errors = audit([painted(ellipse(90, 5, 20, 20), 2, id=9), *GROUND_TRUTH[1:]])
    table = tmp_path / "suspects.csv"
    write_label_errors(table, label_errors)
    assert read_label_errors(table.read_text()) == label_errors
    assert {(7, 9), (7, None)} <= read_exclusions(table)


@pytest.mark.parametrize("text", ["", "image_id\n1\n", "{"])
def test_what_is_no_list_of_suspects_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="columns"):
        read_label_errors(text)


def test_a_list_without_suspects_is_its_header(tmp_path: Path) -> None:
    write_label_errors(tmp_path / "none.csv", [])
    assert read_label_errors((tmp_path / "none.csv").read_text()) == []


@pytest.mark.parametrize(
    ("x", "y", "width", "height"), [(0, 0, 1, 1), (119, 79, 1, 1), (0, 0, 120, 80), (0, 40, 120, 2)]
)
def test_a_picture_never_leaves_the_photo(x: int, y: int, width: int, height: int) -> None:
    label_error = LabelError(1, 2, "a.jpg", "cat", "dog", "outline", 0.5, x, y, width, height, 1)
    photo = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    view = draw_label_error(label_error, photo, paint([]), paint([]))["photo"]
    assert max(view.size) == 240
    assert np.mean(np.asarray(view) == 200) > 0.9  # the photo, and the box


def test_a_suspect_in_a_very_long_photo_is_a_line() -> None:
    label_error = LabelError(1, 2, "a.jpg", "cat", "dog", "outline", 0.5, 0, 0, 1500, 2, 3000)
    labels = np.zeros((4, 3000), np.uint8)
    views = draw_label_error(label_error, np.zeros((4, 3000, 3), np.uint8), labels, labels)
    assert {view.size for view in views.values()} == {(240, 1)}


def test_pictures_show_the_suspect_in_the_middle(tmp_path: Path) -> None:
    (label_error,) = audit([GROUND_TRUTH[0], *GROUND_TRUTH[2:]])[:1]
    labels = paint(GROUND_TRUTH)
    photo = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    views = draw_label_error(label_error, photo, paint(GROUND_TRUTH[:1]), labels)
    assert tuple(views) == LABEL_ERROR_VIEWS
    assert {view.size for view in views.values()} == {(240, 240)}  # 80 x 80 pixels of 120 x 80
    # The object's middle, 57 from the left and 30 from the top, of columns 17 to 97.
    middle = {title: view.getpixel((3 * (57 - 17), 3 * 30)) for title, view in views.items()}
    assert middle["photo"] == middle["annotated"] == (200, 200, 200) != middle["predicted"]
    sample = Sample(tmp_path / "0.jpg", tmp_path / "mask.png")
    views["photo"].resize((WIDTH, HEIGHT)).save(sample.image)
    write_mask(sample.mask, labels)
    write_mask(tmp_path / "0.png", labels)
    (tmp_path / "gallery").mkdir()
    write_gallery(tmp_path / "gallery", [label_error], [sample], tmp_path)
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {
        f"suspect_1_{title}.jpg" for title in LABEL_ERROR_VIEWS
    }
