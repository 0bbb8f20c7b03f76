"""What a selection is like before anyone trains on it: counts, sizes, places, overlaps.

data = measure(selection, Path("data/masks"), workers=2)
data.figures()
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from cocoseg.coco.instances import (
    SIZES,
    Annotation,
    ImageRecord,
    Instances,
    parse_segmentation,
)
from cocoseg.coco.rasterize import encode_region
from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.core.parallel import in_processes
from cocoseg.core.values import rounded as _round

TINY = 16
"""Fewer pixels than this are hardly an object."""

PLACES = 32
"""Places are counted on a grid of so many rows and columns, whatever the image's size."""


@dataclass
class Measured:
    """A selection and what was counted in it; images and annotations keep their order.

    Per annotation: `areas` its pixels (N,); `boxes` its left, top, width and height (N, 4);
    `image_of` its image's place in `images` (N,); `labels` (N,) and `crowd` (N,).
    Per image: `pixels` those of each label of its mask (I, labels and void); `overlaps` those that
    are painted over by another object, crowd regions aside (I,).
    `places` (labels, PLACES, PLACES) counts the images whose mask has a label there; `twins` are
    the annotations, as pairs, that cover the same pixels of their image.
    """

    images: Sequence[ImageRecord]
    annotations: Sequence[Annotation]
    names: Sequence[str]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    image_of: NDArray[np.int64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    pixels: NDArray[np.int64]
    overlaps: NDArray[np.int64]
    places: NDArray[np.int64]
    twins: Sequence[tuple[int, int]]

    @property
    def class_labels(self) -> range:
        """1…N; `names` begins with the background."""
        return range(1, len(self.names))

    @property
    def image_areas(self) -> NDArray[np.int64]:
        areas: NDArray[np.int64] = self.pixels.sum(axis=1)
        return areas

    def objects(self, label: int | None = None) -> NDArray[np.int64]:
        """The places of the annotations that are no crowd regions, of a class or of all."""
        chosen = ~self.crowd if label is None else ~self.crowd & (self.labels == label)
        return np.flatnonzero(chosen)

    def instances(self) -> NDArray[np.int64]:
        """(I, labels): how many objects of each class an image has, crowd regions left out."""
        counts = np.zeros((len(self.images), len(self.names)), np.int64)
        objects = self.objects()
        np.add.at(counts, (self.image_of[objects], self.labels[objects]), 1)
        return counts

    def shows(self) -> NDArray[np.bool_]:
        """(I, labels): whether an image has a class, be it as a crowd region."""
        shown = np.zeros((len(self.images), len(self.names)), np.bool_)
        shown[self.image_of, self.labels] = True
        return shown

    def sizes(self, label: int | None = None) -> dict[str, int]:
        """How many objects of a class, or of all, are small, medium and large."""
        limits = [limit for limit in SIZES.values() if limit]
        places = np.searchsorted(limits, self.areas[self.objects(label)], side="right")
        counts = np.bincount(places, minlength=len(SIZES)).tolist()
        return dict(zip(SIZES, counts, strict=True))

    def hidden(self) -> NDArray[np.bool_]:
        """(I, labels): whether an image has objects of a class of which its mask shows nothing."""
        hidden: NDArray[np.bool_] = (self.instances() > 0) & (self.pixels[:, :-1] == 0)
        return hidden

    def ignored_fractions(self) -> NDArray[np.float64]:
        """(I,): the share of each mask that is void."""
        return self.pixels[:, -1] / self.image_areas

    def rectangles(self) -> NDArray[np.int64]:
        """The places of the objects that fill their box to the last pixel: boxes, not outlines.

        Those of a side below 8 pixels often do that honestly.
        """
        width, height = self.boxes[:, 2], self.boxes[:, 3]
        full = (self.areas == width * height) & (np.minimum(width, height) >= 8)
        return np.flatnonzero(full & ~self.crowd)

    def together(self) -> NDArray[np.int64]:
        """(labels, labels): how many images show both classes; one class's images on the diagonal.

        The background's row and column are zero.
        """
        shown = self.shows().astype(np.int64)
        return shown.T @ shown

    def figures(self) -> dict[str, Any]:
        """The figures of `metrics/data.json`."""
        per_image = self.instances().sum(axis=1)
        objects = self.objects()
        widths, heights = ([getattr(i, side) for i in self.images] for side in ("width", "height"))
        shown = self.shows().sum(axis=0)
        return {
            "images": len(self.images),
            "instances": len(objects),
            "crowd_regions": int(self.crowd.sum()),
            "instances_per_image": {
                "mean": _round(per_image.mean()),
                "median": _round(np.median(per_image)),
                "max": int(per_image.max()),
            },
            "image_sizes": {
                "sizes": len({(image.width, image.height) for image in self.images}),
                "median_width": _round(np.median(widths)),
                "median_height": _round(np.median(heights)),
            },
            "objects": {
                **self.sizes(),
                "tiny": int((self.areas[objects] < TINY).sum()),
                "rectangles": len(self.rectangles()),
                "twins": len(self.twins),
            },
            "fractions": {
                "overlap": _round(self.overlaps.sum() / max(1, self.areas[objects].sum())),
                "ignored": _round(self.pixels[:, -1].sum() / self.pixels.sum()),
            },
            "classes": {
                self.names[label]: {
                    "images": int(shown[label]),
                    "instances": len(self.objects(label)),
                    "median_area": _median(self.areas[self.objects(label)]),
                }
                for label in self.class_labels
            },
        }

    def class_rows(self) -> list[dict[str, Any]]:
        """For a plot: the share of the images that show each class."""
        shown = self.shows().sum(axis=0).tolist()
        return [
            {
                "class": self.names[label],
                "fraction": round(shown[label] / len(self.images), 4),
                "images": shown[label],
                "instances": len(self.objects(label)),
            }
            for label in self.class_labels
        ]

    def side_counts(self, label: int | None = None) -> dict[int, int]:
        """How many objects have a side (the root of the area) of 0, 1, 2 to 3, 4 to 7, … pixels, by
        the smallest of these."""
        areas = self.areas[self.objects(label)]
        limits = [0, *(4**power for power in range(14))]
        counts = np.histogram(areas, [*limits, 1 << 62])[0].tolist()
        return {int(limit**0.5): n for limit, n in zip(limits, counts, strict=True)}

    def side_rows(self) -> list[dict[str, Any]]:
        """For a plot: `side_counts` of each class, up to the longest side that there is."""
        longest = max((side for side, n in self.side_counts().items() if n), default=0)
        return [
            {"class": self.names[label], "side": side, "instances": n}
            for label in self.class_labels
            for side, n in self.side_counts(label).items()
            if side <= longest
        ]


def measure(selection: Instances, masks: Path, workers: int) -> Measured:
    """Count what is in a selection, whose category ids are labels, and in its masks.

    Raises UserError when a mask is missing, damaged or of another size than its image.
    """
    of_image: dict[int, list[Annotation]] = {image.id: [] for image in selection.images}
    for annotation in selection.annotations:
        of_image[annotation.image_id].append(annotation)
    names = ["background", *(category.name for category in selection.categories)]
    jobs = (
        _Job(image, of_image[image.id], masks / f"{image.stem}.png") for image in selection.images
    )
    areas, boxes, overlaps, pixels = [], [], [], []
    twins: list[tuple[int, int]] = []
    places = np.zeros((IGNORE_INDEX + 1, PLACES, PLACES), np.int64)
    rows, columns = np.indices((PLACES, PLACES))
    done = 0
    for counted in in_processes(_measure_image, jobs, workers):
        areas.append(counted.areas)
        boxes.append(counted.boxes)
        overlaps.append(counted.overlap)
        pixels.append([*counted.pixels[: len(names)], counted.pixels[IGNORE_INDEX]])
        twins += [(done + first, done + second) for first, second in counted.twins]
        places[counted.places, rows, columns] += 1
        done += len(counted.areas)
    annotations = [a for image in selection.images for a in of_image[image.id]]
    return Measured(
        images=selection.images,
        annotations=annotations,
        names=names,
        areas=np.concatenate(areas),
        boxes=np.concatenate(boxes),
        image_of=np.repeat(np.arange(len(areas)), [len(of_image[i.id]) for i in selection.images]),
        labels=np.array([annotation.category_id for annotation in annotations]),
        crowd=np.array([annotation.iscrowd == 1 for annotation in annotations]),
        pixels=np.array(pixels),
        overlaps=np.array(overlaps),
        places=places[: len(names)],
        twins=twins,
    )


@dataclass
class _Job:
    image: ImageRecord
    annotations: list[Annotation]
    mask: Path


@dataclass
class _Counted:
    """`Measured` of one image; `pixels` has 256 labels, `places` (PLACES, PLACES) a label each."""

    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    overlap: int
    twins: list[tuple[int, int]]
    pixels: list[int]
    places: NDArray[np.uint8]


def _measure_image(job: _Job) -> _Counted:
    width, height = job.image.width, job.image.height
    encoded = [
        encode_region(parse_segmentation(a.segmentation, width, height), width, height, whole=True)
        for a in job.annotations
    ]
    areas = coco_mask.area(encoded).astype(np.int64)
    objects = [e for e, a in zip(encoded, job.annotations, strict=True) if not a.iscrowd]
    object_areas = sum(int(n) for n, a in zip(areas, job.annotations, strict=True) if not a.iscrowd)
    union = int(coco_mask.area(coco_mask.merge(objects))) if objects else 0
    first: dict[bytes, int] = {}
    twins = []
    for place, (area, region) in enumerate(zip(areas, encoded, strict=True)):
        before = first.setdefault(region["counts"], place)
        if area and before != place:
            twins.append((before, place))
    pixels, places = _read_mask(job.mask, width, height)
    boxes = coco_mask.toBbox(encoded).astype(np.int64)
    return _Counted(areas, boxes, object_areas - union, twins, pixels, places)


def _read_mask(path: Path, width: int, height: int) -> tuple[list[int], NDArray[np.uint8]]:
    """How many pixels each of 256 labels has, and the labels at PLACES x PLACES points."""
    try:
        with Image.open(path) as mask:
            if mask.mode == "P" and mask.size == (width, height):
                shown = mask.resize((PLACES, PLACES), Image.Resampling.NEAREST)
                return mask.histogram(), np.asarray(shown)
        problem = f"is no label map of {width} x {height} pixels"
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise
        problem = "is damaged"
    raise UserError(f"{path} {problem}: `dvc repro --force --single-item mask` paints all anew")


def _median(values: NDArray[np.int64]) -> float | None:
    return _round(np.median(values)) if len(values) else None
