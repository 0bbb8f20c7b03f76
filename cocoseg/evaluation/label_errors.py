"""Potential label errors: annotations of the test images that contradict confident predictions.

The network was not trained on the test images, so a confident disagreement is an error of either
the network or the annotation. Each annotation is compared with the predicted probabilities on its
pixels, and each predicted object with the annotations. Cleanlab does the same for pixels and images
(Lad and Mueller, "Estimating label quality and errors in semantic segmentation data via any model",
2023) and for boxes (Tkachenko, Thyagarajan and Mueller, "ObjectLab: Automated Diagnosis of
Mislabeled Images in Object Detection Data", 2023).
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from cocoseg.coco.instances import Annotation
from cocoseg.coco.rasterize import decode_region, encode_annotation
from cocoseg.core.drawing import RGBImage, overlay_labels
from cocoseg.core.labels import Labels

LABEL_ERROR_VIEWS = ("image", "annotated", "predicted")

REACH = 0.5
"""Predictions of an annotation's class count as its own up to this distance from its box, in square
roots of its area."""

FOUND = 0.3
"""Annotations with a higher agreement count as found."""

NEIGHBORS = 20
"""Reliability is estimated from this many next smaller and next larger findings of the class."""

MIN_SCORE = 0.1
"""Findings with a lower score are not label errors."""

PARTLY_SEEN = 0.25
"""An annotation on predicted background has a wrong outline if the mean probability of its class is
higher, and is extra otherwise."""


@dataclass(frozen=True)
class Finding:
    """The prediction for an annotation, or a predicted object without an annotation.

    Attributes:
        annotation_id: the ID of the annotation; None without one.
        label: the label of the annotation, or of the predicted object.
        means: the mean probability of each class over the visible pixels, float64 (classes,).
        agreement: the soft IoU of the annotation and the prediction of its class on and around it,
            from 0 to 1; 0 without an annotation.
        box: (left, top, width, height) of the visible pixels.
        area: the number of visible pixels.
        category: the category of the annotation in the source, if its class merges several.
    """

    annotation_id: int | None
    label: int
    means: NDArray[np.float64]
    agreement: float
    box: tuple[int, int, int, int]
    area: int
    category: str = ""


def find(
    objects: Sequence[Annotation],
    ground_truth: Labels,
    prediction: Labels,
    probabilities: NDArray[np.float32],
) -> list[Finding]:
    """Compare the annotations of one image with the prediction.

    Predicted objects without an annotation are connected regions of background that are predicted
    as a class, unless at least half of a region is close to an annotation of this class, or to one
    that is predicted as this class.

    Args:
        objects: the annotations, without crowd regions; their category IDs are labels.
        ground_truth: uint8 (H, W).
        prediction: uint8 (H, W).
        probabilities: float32 (classes, H, W).

    Returns:
        A finding for each annotation with visible pixels, then for each predicted object without
        an annotation.
    """
    findings = []
    height, width = ground_truth.shape
    unannotated = np.where(ground_truth == 0, prediction, 0)
    explained = np.zeros(ground_truth.shape, np.bool_)
    for annotation in objects:
        label = annotation.category_id
        region = decode_region(encode_annotation(annotation, width, height))
        visible = region.pixels & (region.of(ground_truth) == label)
        if not visible.any():
            continue
        ((rows, columns),) = ndimage.find_objects(visible.astype(np.uint8))
        visible = visible[rows, columns]
        window = _window(rows, columns, region.top, region.left)
        around = _window(*window, margin=round(REACH * visible.sum() ** 0.5))
        excess = unannotated[around] == label
        beyond = float(probabilities[label][around][excess].sum(dtype=np.float64))
        finding = replace(
            _finding(annotation.id, label, probabilities, window, visible, beyond),
            category=annotation.source_category or "",
        )
        # The class that is predicted in its place may extend beyond the annotation, too.
        explained[around] |= excess | (unannotated[around] == finding.means.argmax())
        findings.append(finding)
    for label in np.unique(unannotated[unannotated > 0]).tolist():
        components, _ = ndimage.label(unannotated == label)
        for number, window in enumerate(ndimage.find_objects(components), start=1):
            pixels = components[window] == number
            if explained[window][pixels].mean() < 0.5:
                findings.append(_finding(None, label, probabilities, window, pixels, 0.0))
    return findings


Window = tuple[slice, slice]
"""Rows and columns."""


def _window(rows: slice, columns: slice, top: int = 0, left: int = 0, margin: int = 0) -> Window:
    """Move a window, and add a margin on each side."""
    return (
        slice(max(0, rows.start + top - margin), rows.stop + top + margin),
        slice(max(0, columns.start + left - margin), columns.stop + left + margin),
    )


def _finding(
    annotation_id: int | None,
    label: int,
    probabilities: NDArray[np.float32],
    window: Window,
    pixels: NDArray[np.bool_],
    beyond: float,
) -> Finding:
    """The finding on pixels (h, w) of a window; `beyond` is the summed probability around them."""
    rows, columns = window
    means = probabilities[:, rows, columns][:, pixels].mean(axis=1, dtype=np.float64)
    area = int(pixels.sum())
    agreement = 0.0 if annotation_id is None else float(means[label]) * area / (area + beyond)
    box = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
    return Finding(annotation_id, label, means, agreement, box, area)


@dataclass(frozen=True)
class LabelError:
    """A row of `metrics/label_errors.csv`.

    Attributes:
        image_id: the ID of the image.
        annotation_id: the ID of the annotation; None if it is missing.
        image: the file name of the image.
        annotated: the annotated class, or background.
        predicted: the predicted class, or background.
        kind: `missing`, `extra`, `wrong class` or `outline`.
        score: from 0 to 1, higher for a more likely error.
        x: the left side of the box in pixels.
        y: the top of the box.
        width: the width of the box.
        height: the height of the box.
        area: the number of visible pixels.
        category: the category of the annotation in the source, if its class merges several.
    """

    image_id: int
    annotation_id: int | None
    image: str
    annotated: str
    predicted: str
    kind: str
    score: float
    x: int
    y: int
    width: int
    height: int
    area: int
    category: str = ""


_COLUMNS = [field.name for field in fields(LabelError)]


def rank_label_errors(
    images: Sequence[tuple[int, str]],
    findings: Sequence[Sequence[Finding]],
    classes: Sequence[str],
) -> list[LabelError]:
    """Rank findings by how likely they are label errors.

    The score is the disagreement times the reliability, which is how often the network is right
    about objects of this class and size. A missed small object of a class that the network often
    misses says little about the label.

    Args:
        images: the ID and the file name of each image.
        findings: the findings of each image.
        classes: the class names in label order, background first.

    Returns:
        The label errors with a score of at least MIN_SCORE, the highest score first.
    """
    flat = [(image, f) for image, found in zip(images, findings, strict=True) for f in found]
    reliability = _reliability([f for _, f in flat])
    label_errors = []
    for ((image_id, name), f), reliable in zip(flat, reliability, strict=True):
        if f.annotation_id is None:
            kind, annotated, seen, score = "missing", 0, f.label, f.means[f.label]
        else:
            annotated, seen, score = f.label, int(f.means.argmax()), 1 - f.agreement
            if seen == 0 and f.means[f.label] > PARTLY_SEEN:
                seen = f.label
            kind = "outline" if seen == f.label else "wrong class" if seen else "extra"
        score = round(float(score * reliable), 4)
        labels = classes[annotated], classes[seen]
        if score >= MIN_SCORE:
            label_errors.append(
                LabelError(
                    *(image_id, f.annotation_id, name, *labels, kind, score, *f.box, f.area),
                    category=f.category,
                )
            )
    return sorted(
        label_errors, key=lambda s: (-s.score, s.image_id, s.annotation_id or -1, s.x, s.y)
    )


def _reliability(findings: Sequence[Finding]) -> NDArray[np.float64]:
    """How often the network is right about objects of the class and the approximate size.

    For an annotation this is the recall: the fraction of annotations that are found. For a
    predicted object without one it is the precision: found annotations over all predicted objects.
    """
    labels = np.array([f.label for f in findings], np.intp)
    areas = np.array([f.area for f in findings], np.intp)
    found = np.array([f.agreement > FOUND for f in findings], np.bool_)
    annotated = np.array([f.annotation_id is not None for f in findings], np.bool_)
    reliability = np.zeros(len(findings))
    for label in np.unique(labels):
        for rated, group in ((annotated, annotated), (~annotated, ~annotated | found)):
            members = np.flatnonzero((labels == label) & group)
            members = members[np.argsort(areas[members], kind="stable")]
            correct = np.concatenate([[0], np.cumsum(found[members])])
            ranks = np.arange(len(members))
            first = np.maximum(ranks - NEIGHBORS, 0)
            end = np.minimum(ranks + NEIGHBORS + 1, len(members))
            # Laplace's rule of succession: count one more correct and one more wrong.
            fractions = (correct[end] - correct[first] + 1) / (end - first + 2)
            reliability[members] = np.where(rated[members], fractions, reliability[members])
    return reliability


def write_label_errors(path: Path, label_errors: Iterable[LabelError]) -> None:
    """Write a CSV file, whose rows can be copied into the file of `filter.exclude`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, label_errors))


def read_label_errors(text: str) -> list[LabelError]:
    """Parse the content of a file of `write_label_errors`; ValueError for other content."""
    rows = csv.DictReader(io.StringIO(text))
    if rows.fieldnames != _COLUMNS:
        raise ValueError(f"expected the columns {','.join(_COLUMNS)}")
    return [
        msgspec.convert(
            {**row, "annotation_id": row["annotation_id"] or None}, LabelError, strict=False
        )
        for row in rows
    ]


def draw_label_error(
    label_error: LabelError,
    image: RGBImage,
    ground_truth: Labels,
    prediction: Labels,
    size: int = 240,
) -> dict[str, Image.Image]:
    """Draw the surroundings of a label error, with its box.

    Args:
        label_error: the label error.
        image: uint8 (H, W, 3).
        ground_truth: uint8 (H, W).
        prediction: uint8 (H, W).
        size: the longer side of the drawings in pixels.

    Returns:
        Drawings by the names in LABEL_ERROR_VIEWS: the image alone, with the annotated labels, and
        with the predicted labels.
    """
    side = max(2 * label_error.width, 2 * label_error.height, 64)
    rows = _around(label_error.y, label_error.height, side, image.shape[0])
    columns = _around(label_error.x, label_error.width, side, image.shape[1])
    zoom = size / max(rows.stop - rows.start, columns.stop - columns.start)
    left, top = (label_error.x - columns.start) * zoom, (label_error.y - rows.start) * zoom
    box = (left, top, left + label_error.width * zoom - 1, top + label_error.height * zoom - 1)
    views = (image, overlay_labels(image, ground_truth), overlay_labels(image, prediction))
    drawn = {}
    for title, view in zip(LABEL_ERROR_VIEWS, views, strict=True):
        crop = Image.fromarray(view[rows, columns])
        crop = crop.resize(
            (max(1, round(crop.width * zoom)), max(1, round(crop.height * zoom))),
            Image.Resampling.BICUBIC,
        )
        for inset, color in ((0, (0, 0, 0)), (1, (255, 255, 255))):
            corners = (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset)
            if corners[0] <= corners[2] and corners[1] <= corners[3]:
                ImageDraw.Draw(crop).rectangle(corners, outline=color)
        drawn[title] = crop
    return drawn


def _around(start: int, length: int, size: int, limit: int) -> slice:
    """A range of at most `size` pixels around the given one, within 0 and `limit`."""
    size = min(size, limit)
    first = min(max(0, start + length // 2 - size // 2), limit - size)
    return slice(first, first + size)
