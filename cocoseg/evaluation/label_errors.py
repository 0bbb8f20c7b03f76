"""Which annotations of the test images the model disagrees with most, for a person to judge.

The network was not trained on these images: where it is sure of something else, one of the two is
wrong. It is asked about each annotation, by its probabilities on the annotation's pixels, and about
what it sees where nothing is annotated. Cleanlab does so with pixels and images (Lad and Mueller,
"Estimating label quality and errors in semantic segmentation data via any model", 2023) and with
boxes (Tkachenko, Thyagarajan and Mueller, "ObjectLab: Automated Diagnosis of Mislabeled Images in
Object Detection Data", 2023).
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from cocoseg.coco.instances import Annotation, parse_segmentation
from cocoseg.coco.rasterize import decode_region, encode_region
from cocoseg.core.drawing import RGBImage, overlay_labels
from cocoseg.core.labels import Labels

LABEL_ERROR_VIEWS = ("image", "annotated", "predicted")

REACH = 0.5
"""How far around an annotation its class still counts for it, in square roots of its pixels."""

FOUND = 0.3
"""An annotation with a higher agreement counts as found."""

NEIGHBORS = 20
"""A thing's size is that of so many next smaller ones and so many next larger ones."""

LEAST_SCORE = 0.1
"""Below it there is no suspicion."""

PARTLY_SEEN = 0.25
"""An annotation of which more is seen, and the rest is background, has a bad outline."""


@dataclass(frozen=True)
class Finding:
    """What the network says about an annotation, or about something it sees where none is.

    The latter has no `annotation_id`, and the class seen as `label`. `means` (classes,) are the
    mean probabilities over its visible pixels, of which there are `area`, in the `box` (left, top,
    width, height). `agreement` is the soft IoU of 0 to 1 of the annotation with what is seen of its
    class on it and close to it.
    """

    annotation_id: int | None
    label: int
    means: NDArray[np.float64]
    agreement: float
    box: tuple[int, int, int, int]
    area: int


def find(
    objects: Sequence[Annotation],
    ground_truth: Labels,
    prediction: Labels,
    probabilities: NDArray[np.float32],
) -> list[Finding]:
    """Ask about one image's annotations, and about connected parts of its background that are
    predicted as a class and lie, for the most part, apart from annotations that are of this class
    or seen as it.

    `objects` have labels as category ids; label maps are (H, W), `probabilities` (classes, H, W).
    """
    findings = []
    height, width = ground_truth.shape
    unannotated = np.where(ground_truth == 0, prediction, 0)
    explained = np.zeros(ground_truth.shape, np.bool_)
    for annotation in objects:
        label = annotation.category_id
        segmentation = parse_segmentation(annotation.segmentation, width, height)
        region = decode_region(encode_region(segmentation, width, height))
        visible = region.pixels & (region.of(ground_truth) == label)
        if not visible.any():
            continue
        ((rows, columns),) = ndimage.find_objects(visible.astype(np.uint8))
        visible = visible[rows, columns]
        window = _window(rows, columns, region.top, region.left)
        around = _window(*window, margin=round(REACH * visible.sum() ** 0.5))
        excess = unannotated[around] == label
        beyond = float(probabilities[label][around][excess].sum(dtype=np.float64))
        finding = _finding(annotation.id, label, probabilities, window, visible, beyond)
        # What is seen in its place may be larger than the annotation, too.
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
    """The window moved, and grown by a margin on each side."""
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
    """The finding about pixels (h, w) of a window; `beyond` is what is seen of the class around."""
    rows, columns = window
    means = probabilities[:, rows, columns][:, pixels].mean(axis=1, dtype=np.float64)
    area = int(pixels.sum())
    agreement = 0.0 if annotation_id is None else float(means[label]) * area / (area + beyond)
    box = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
    return Finding(annotation_id, label, means, agreement, box, area)


@dataclass(frozen=True)
class LabelError:
    """A row of `metrics/suspects.csv`; box and area in pixels, the score from 0 to 1.

    `predicted` is the class that the network sees in place of `annotated`; one of both may be the
    background. Kinds are `missing`, `extra`, `wrong class` and `outline`.
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


COLUMNS = [field.name for field in fields(LabelError)]


def rank_label_errors(
    images: Sequence[tuple[int, str]],
    findings: Sequence[Sequence[Finding]],
    classes: Sequence[str],
) -> list[LabelError]:
    """What is most likely wrong comes first; `images` are ids and file names, findings are theirs.

    The score is how far the network disagrees, times how often it is right about things of that
    class and size: that it overlooks one small person more says little about the label. `classes`
    are the classes' names in label order, background first.
    """
    flat = [(image, f) for image, of_image in zip(images, findings, strict=True) for f in of_image]
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
        if score >= LEAST_SCORE:
            label_errors.append(
                LabelError(image_id, f.annotation_id, name, *labels, kind, score, *f.box, f.area)
            )
    return sorted(
        label_errors, key=lambda s: (-s.score, s.image_id, s.annotation_id or -1, s.x, s.y)
    )


def _reliability(findings: Sequence[Finding]) -> NDArray[np.float64]:
    """How often the network is right about things of this class and about this size.

    About an annotation: which share of the annotations is found; about what it sees without one:
    which share of such sights, together with the annotations found, are annotations.
    """
    labels = np.array([f.label for f in findings], np.intp)
    areas = np.array([f.area for f in findings], np.intp)
    found = np.array([f.agreement > FOUND for f in findings], np.bool_)
    annotated = np.array([f.annotation_id is not None for f in findings], np.bool_)
    reliability = np.zeros(len(findings))
    for label in np.unique(labels):
        for asked, group in ((annotated, annotated), (~annotated, ~annotated | found)):
            members = np.flatnonzero((labels == label) & group)
            members = members[np.argsort(areas[members], kind="stable")]
            right = np.concatenate([[0], np.cumsum(found[members])])
            places = np.arange(len(members))
            first = np.maximum(places - NEIGHBORS, 0)
            end = np.minimum(places + NEIGHBORS + 1, len(members))
            # One right and one wrong are added to each share (Laplace's rule of succession).
            fractions = (right[end] - right[first] + 1) / (end - first + 2)
            reliability[members] = np.where(asked[members], fractions, reliability[members])
    return reliability


def write_label_errors(path: Path, label_errors: Iterable[LabelError]) -> None:
    """Write a CSV file; its rows can be copied into the file of `filter.exclude`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, label_errors))


def read_label_errors(text: str) -> list[LabelError]:
    """What `write_suspects` wrote. Raises ValueError for anything else."""
    rows = csv.DictReader(io.StringIO(text))
    if rows.fieldnames != COLUMNS:
        raise ValueError("the columns are others")
    return [
        msgspec.convert(
            {**row, "annotation_id": row["annotation_id"] or None}, LabelError, strict=False
        )
        for row in rows
    ]


def draw_label_error(
    label_error: LabelError,
    photo: RGBImage,
    ground_truth: Labels,
    prediction: Labels,
    size: int = 240,
) -> dict[str, Image.Image]:
    """The part of the photo (H, W, 3) around a suspect, its longer side of `size` pixels: as it is,
    with the labels as annotated, and as predicted; the suspect's box is drawn."""
    side = max(2 * label_error.width, 2 * label_error.height, 64)
    rows = _around(label_error.y, label_error.height, side, photo.shape[0])
    columns = _around(label_error.x, label_error.width, side, photo.shape[1])
    zoom = size / max(rows.stop - rows.start, columns.stop - columns.start)
    left, top = (label_error.x - columns.start) * zoom, (label_error.y - rows.start) * zoom
    box = (left, top, left + label_error.width * zoom - 1, top + label_error.height * zoom - 1)
    views = (photo, overlay_labels(photo, ground_truth), overlay_labels(photo, prediction))
    drawn = {}
    for title, view in zip(LABEL_ERROR_VIEWS, views, strict=True):
        part = Image.fromarray(view[rows, columns])
        part = part.resize(
            (max(1, round(part.width * zoom)), max(1, round(part.height * zoom))),
            Image.Resampling.BICUBIC,
        )
        for inset, color in ((0, (0, 0, 0)), (1, (255, 255, 255))):
            corners = (box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset)
            if corners[0] <= corners[2] and corners[1] <= corners[3]:
                ImageDraw.Draw(part).rectangle(corners, outline=color)
        drawn[title] = part
    return drawn


def _around(start: int, length: int, wanted: int, limit: int) -> slice:
    """A part of `wanted` pixels with these in its middle, inside of `limit` pixels."""
    wanted = min(wanted, limit)
    first = min(max(0, start + length // 2 - wanted // 2), limit - wanted)
    return slice(first, first + wanted)
