"""A network that is always right finds planted label errors and names their kind."""

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
from cocoseg.curation.exclusions import read_exclusions
from cocoseg.evaluation.examples import write_gallery
from cocoseg.evaluation.label_errors import (
    LABEL_ERROR_VIEWS,
    Finding,
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


def confident(labels: Labels, confidence: float = 0.98) -> NDArray[np.float32]:
    """Probabilities (classes, H, W) of a network that predicts these labels."""
    others = (1 - confidence) / (len(CLASSES) - 1)
    probabilities = np.full((len(CLASSES), *labels.shape), others, np.float32)
    np.put_along_axis(probabilities, labels[None].astype(int), confidence, axis=0)
    return probabilities


def audit(
    *images: Sequence[Annotation], predicted: Sequence[Annotation] = GROUND_TRUTH
) -> list[LabelError]:
    """The label errors in the annotations of images for which the network predicts `predicted`."""
    labels = paint(predicted)
    findings = [find(objects, paint(objects), labels, confident(labels)) for objects in images]
    names = [(7 + index, f"{index}.jpg") for index in range(len(images))]
    return rank_label_errors(names, findings, CLASSES)


def test_correct_annotations_are_not_label_errors() -> None:
    assert audit(GROUND_TRUTH, GROUND_TRUTH) == []


@needs_mirror
def test_on_real_images_the_changed_annotation_is_the_first_label_error(
    tmp_path: Path,
) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(mirror_document("val2017")))
    correct = select_from(file, ("person", "car"), max_instances=30).instances

    def label_errors_of(annotations: list[Annotation]) -> list[LabelError]:
        changed = Instances(correct.images, annotations, correct.categories)
        objects = objects_by_stem(changed)
        findings = []
        for image in correct.images:
            predicted, ground_truth = (
                rasterize(
                    [a for a in version if a.image_id == image.id],
                    *(image.width, image.height),
                    overlap="last",
                    crowd="ignore",
                )
                for version in (correct.annotations, annotations)
            )
            predicted[predicted == IGNORE_INDEX] = 0
            findings.append(
                find(objects[image.stem], ground_truth, predicted, confident(predicted))
            )
        images = [(image.id, image.file_name) for image in correct.images]
        return rank_label_errors(images, findings, ("background", "person", "car"))

    assert len(correct.annotations) > 100
    assert label_errors_of(correct.annotations) == []
    index = len(correct.annotations) // 2
    wrong = msgspec.structs.replace(correct.annotations[index])
    wrong.category_id = 3 - wrong.category_id
    others = correct.annotations[:index], correct.annotations[index + 1 :]
    (first, *_) = label_errors_of([*others[0], wrong, *others[1]])
    assert (first.kind, first.annotation_id) == ("wrong class", wrong.id)


def test_a_missing_annotation_is_located() -> None:
    first = audit([GROUND_TRUTH[0], *GROUND_TRUTH[2:]])[0]
    assert (first.kind, first.annotated, first.predicted) == ("missing", "background", "dog")
    assert (first.image_id, first.annotation_id, first.image) == (7, None, "0.jpg")
    assert (first.x, first.y, first.width, first.height) == (45, 10, 25, 40)
    assert first.area == int((paint(GROUND_TRUTH) == 2)[:, 45:70].sum())
    assert first.score > 0.4


def test_an_annotation_of_background_is_extra() -> None:
    first = audit([*GROUND_TRUTH, painted(ellipse(90, 5, 20, 20), 2, id=9)])[0]
    assert (first.kind, first.annotation_id) == ("extra", 9)
    assert (first.annotated, first.predicted) == ("dog", "background")
    assert first.score > 0.5


def test_a_wrong_class_is_found_with_both_classes() -> None:
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
def test_a_wrong_outline_is_a_single_label_error(outline: list[list[float]]) -> None:
    bad = painted(outline, 1, id=3)
    label_errors = [s for s in audit([*GROUND_TRUTH[:2], bad, GROUND_TRUTH[3]]) if s.score > 0.2]
    assert [(s.kind, s.annotation_id) for s in label_errors] == [("outline", 3)]


@pytest.mark.parametrize("label", [1, 2], ids=["of its class", "of the class predicted on it"])
@pytest.mark.parametrize("left", [20, 0])
@pytest.mark.parametrize(("length", "missing"), [(20, 0), (21, 1)])
def test_a_predicted_object_is_missing_unless_half_of_it_is_close_to_an_annotation(
    label: int, left: int, length: int, missing: int
) -> None:
    """The annotation has 10 x 10 pixels, so 5 pixels around it are close."""
    right = left + 10
    annotation = painted([[left, 20, right, 20, right, 30, left, 30]], 1, id=1)
    prediction = np.zeros((HEIGHT, WIDTH), np.uint8)
    prediction[20:30, left : left + length] = label
    ground_truth = paint([annotation])
    first, *others = find([annotation], ground_truth, prediction, confident(prediction))
    assert (first.annotation_id, first.box, first.area) == (1, (left, 20, 10, 10), 100)
    expected = 0.98 * 100 / (100 + 0.98 * 50) if label == 1 else 0.01
    assert first.agreement == pytest.approx(expected, abs=1e-6)
    assert [(f.annotation_id, f.label) for f in others] == [(None, label)] * missing


def test_the_score_depends_on_how_often_annotations_of_that_size_are_found() -> None:
    """Cats of 51 to 100 pixels are found, except one of 90; smaller ones are not. All dogs are."""
    missed, found = np.array([1.0, 0, 0]), np.array([0.0, 1, 0])
    findings = [
        Finding(area, 1, found, 0.31, (0, 0, 1, 1), area)
        if area > 50 and area != 90
        else Finding(area, 1, missed, 0.0, (0, 0, 1, 1), area)
        for area in np.random.default_rng(0).permutation(np.arange(1, 101)).tolist()
    ]
    findings += [
        Finding(1000 + i, 2, found[[0, 2, 1]], 1.0, (0, 0, 1, 1), i) for i in range(50, 100)
    ]
    first, *others = rank_label_errors([(7, "0.jpg")], [findings], CLASSES)
    # Of 31 cats from 70 to 100 pixels, 30 are found; of 41 cats from 30 to 70 pixels, 20 are.
    assert (first.annotation_id, first.score) == (90, round(31 / 33, 4))
    assert {error.annotation_id: error.score for error in others}[50] == round(21 / 43, 4)
    assert min(error.area for error in others) > 30


def test_hidden_annotations_and_ignored_pixels_have_no_findings() -> None:
    hidden = painted(ellipse(8, 8, 10, 10), 2, id=8)
    crowd = painted(ellipse(45, 10, 25, 40), 2, id=2, iscrowd=1)
    labels = paint(GROUND_TRUTH)
    ground_truth = paint([hidden, GROUND_TRUTH[0], crowd, *GROUND_TRUTH[2:]])
    findings = find(
        [hidden, GROUND_TRUTH[0], *GROUND_TRUTH[2:]], ground_truth, labels, confident(labels)
    )
    assert {f.annotation_id for f in findings} == {1, 3, 4}


def test_label_errors_are_sorted_by_score_for_any_order_of_annotations() -> None:
    bad = [painted(ellipse(90, 5, 20, 20), 2, id=9), *GROUND_TRUTH[1:]]
    label_errors = audit(bad, GROUND_TRUTH, bad)
    scores = [label_error.score for label_error in label_errors]
    assert scores == sorted(scores, reverse=True)
    assert audit(bad[::-1], GROUND_TRUTH, bad) == label_errors


def test_a_merged_class_has_the_category_of_the_source(tmp_path: Path) -> None:
    bad = painted(ellipse(90, 5, 20, 20), 2, id=9)
    bad.source_category = "wolf"
    (label_error,) = (e for e in audit([bad, *GROUND_TRUTH[1:]]) if e.annotation_id == 9)
    assert (label_error.annotated, label_error.category) == (CLASSES[2], "wolf")
    write_label_errors(tmp_path / "table.csv", [label_error])
    header, row = (tmp_path / "table.csv").read_text().splitlines()
    assert header.endswith(",category") and row.endswith(",wolf")
    assert read_label_errors((tmp_path / "table.csv").read_text()) == [label_error]
    with pytest.raises(ValueError, match="expected the columns"):  # of an earlier version
        read_label_errors(f"{header.removesuffix(',category')}\n{row.removesuffix(',wolf')}\n")


def test_written_rows_can_be_read_and_excluded(tmp_path: Path) -> None:
    label_errors = audit([painted(ellipse(90, 5, 20, 20), 2, id=9), *GROUND_TRUTH[1:]])
    table = tmp_path / "label_errors.csv"
    write_label_errors(table, label_errors)
    assert read_label_errors(table.read_text()) == label_errors
    assert {(7, 9), (7, None)} <= read_exclusions(table)


@pytest.mark.parametrize("text", ["", "image_id\n1\n", "{"])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="columns"):
        read_label_errors(text)


def test_an_empty_list_can_be_written_and_read(tmp_path: Path) -> None:
    write_label_errors(tmp_path / "none.csv", [])
    assert read_label_errors((tmp_path / "none.csv").read_text()) == []


@pytest.mark.parametrize(
    ("x", "y", "width", "height"), [(0, 0, 1, 1), (119, 79, 1, 1), (0, 0, 120, 80), (0, 40, 120, 2)]
)
def test_a_drawing_shows_only_the_image_and_the_box(
    x: int, y: int, width: int, height: int
) -> None:
    label_error = LabelError(1, 2, "a.jpg", "cat", "dog", "outline", 0.5, x, y, width, height, 1)
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    view = draw_label_error(label_error, image, paint([]), paint([]))["image"]
    assert max(view.size) == 240
    assert np.mean(np.asarray(view) == 200) > 0.9  # the rest is the box


def test_a_drawing_of_a_very_long_image_is_a_line() -> None:
    label_error = LabelError(1, 2, "a.jpg", "cat", "dog", "outline", 0.5, 0, 0, 1500, 2, 3000)
    labels = np.zeros((4, 3000), np.uint8)
    views = draw_label_error(label_error, np.zeros((4, 3000, 3), np.uint8), labels, labels)
    assert {view.size for view in views.values()} == {(240, 1)}


def test_drawings_show_the_label_error_in_the_middle(tmp_path: Path) -> None:
    (label_error,) = audit([GROUND_TRUTH[0], *GROUND_TRUTH[2:]])[:1]
    labels = paint(GROUND_TRUTH)
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    views = draw_label_error(label_error, image, paint(GROUND_TRUTH[:1]), labels)
    assert tuple(views) == LABEL_ERROR_VIEWS
    assert {view.size for view in views.values()} == {(240, 240)}  # 80 x 80 pixels of 120 x 80
    # The middle of the object is at (57, 30); the drawing shows columns 17 to 97.
    middle = {title: view.getpixel((3 * (57 - 17), 3 * 30)) for title, view in views.items()}
    assert middle["image"] == middle["annotated"] == (200, 200, 200) != middle["predicted"]
    sample = Sample(tmp_path / "0.jpg", tmp_path / "mask.png")
    views["image"].resize((WIDTH, HEIGHT)).save(sample.image)
    write_mask(sample.mask, labels)
    write_mask(tmp_path / "0.png", labels)
    (tmp_path / "gallery").mkdir()
    write_gallery(tmp_path / "gallery", [label_error], [sample], tmp_path)
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == {
        f"label_error_1_{title}.jpg" for title in LABEL_ERROR_VIEWS
    }
