"""Statistics of a selection: counts, sizes, positions, overlaps.

data = measure(selection, Path("data/masks"), workers=2)
data.figures()
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from cocoseg.coco.instances import (
    SIZES,
    Annotation,
    ImageRecord,
    Instances,
)
from cocoseg.coco.rasterize import encode_annotation
from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.core.parallel import in_processes
from cocoseg.core.progress import show_progress
from cocoseg.core.values import rounded

TINY = 16
"""Objects with fewer pixels are tiny."""

GRID = 32
"""Positions are counted on a grid with this number of rows and columns, stretched to each image."""


class ClassFigures(TypedDict):
    """Figures of a class; `median_area` is in pixels, None without objects."""

    images: int
    instances: int
    median_area: float | None


class DataFigures(TypedDict):
    """The content of `metrics/data.json`, except the number of warnings.

    Objects (`instances`) exclude crowd regions. `fractions` are `overlap`, of the annotated pixels,
    and `ignored`, of all pixels.
    """

    images: int
    instances: int
    crowd_regions: int
    instances_per_image: dict[str, float | None]
    image_sizes: dict[str, float | None]
    objects: dict[str, int]
    fractions: dict[str, float | None]
    classes: dict[str, ClassFigures]


ClassRow = TypedDict("ClassRow", {"class": str, "fraction": float, "images": int, "instances": int})
"""A row of `metrics/data/classes.csv`; `fraction` is the fraction of images with the class."""

SideRow = TypedDict("SideRow", {"class": str, "side": int, "instances": int})
"""A row of `metrics/data/sizes.csv`: a bin of `DataStatistics.side_counts`."""


@dataclass
class DataStatistics:
    """Statistics of I images with N annotations and L labels, including the background.

    Attributes:
        images: the images.
        annotations: the annotations, sorted by image.
        names: the class names in label order, background first.
        areas: the number of pixels of each annotation, int64 (N,).
        boxes: left, top, width and height of each annotation in pixels, int64 (N, 4).
        image_of: the index of the image of each annotation, int64 (N,).
        labels: the label of each annotation, int64 (N,).
        crowd: whether each annotation is a crowd region, bool (N,).
        pixels: the number of pixels of each label in each mask, int64 (I, L + 1); ignored pixels
            are last.
        overlaps: the number of annotated pixels in each image that other objects cover as well,
            without crowd regions, int64 (I,).
        positions: the number of masks with each label at each point of a grid, int64
            (L, GRID, GRID).
        duplicates: pairs of indices of annotations with identical pixels in the same image.
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
    positions: NDArray[np.int64]
    duplicates: Sequence[tuple[int, int]]

    @property
    def class_labels(self) -> range:
        """All labels except the background."""
        return range(1, len(self.names))

    @property
    def image_areas(self) -> NDArray[np.int64]:
        """The number of pixels of each image, int64 (I,)."""
        areas: NDArray[np.int64] = self.pixels.sum(axis=1)
        return areas

    def objects(self, label: int | None = None) -> NDArray[np.int64]:
        """Indices of the annotations of a class, or of all, without crowd regions."""
        chosen = ~self.crowd if label is None else ~self.crowd & (self.labels == label)
        return np.flatnonzero(chosen)

    def empty_images(self) -> NDArray[np.int64]:
        """Indices of the images without annotations."""
        return np.setdiff1d(np.arange(len(self.images)), self.image_of)

    def instances(self) -> NDArray[np.int64]:
        """The number of objects of each class in each image, without crowd regions, (I, L)."""
        counts = np.zeros((len(self.images), len(self.names)), np.int64)
        objects = self.objects()
        np.add.at(counts, (self.image_of[objects], self.labels[objects]), 1)
        return counts

    def shows(self) -> NDArray[np.bool_]:
        """Whether each image has annotations of each class, with crowd regions, (I, L)."""
        shown = np.zeros((len(self.images), len(self.names)), np.bool_)
        shown[self.image_of, self.labels] = True
        return shown

    def sizes(self, label: int | None = None) -> dict[str, int]:
        """The number of small, medium and large objects of a class, or of all."""
        limits = [limit for limit in SIZES.values() if limit]
        sizes = np.searchsorted(limits, self.areas[self.objects(label)], side="right")
        counts = np.bincount(sizes, minlength=len(SIZES)).tolist()
        return dict(zip(SIZES, counts, strict=True))

    def hidden(self) -> NDArray[np.bool_]:
        """Whether each image has objects of a class that its mask does not show, (I, L)."""
        hidden: NDArray[np.bool_] = (self.instances() > 0) & (self.pixels[:, :-1] == 0)
        return hidden

    def ignored_fractions(self) -> NDArray[np.float64]:
        """The fraction of ignored pixels in each mask, (I,)."""
        return self.pixels[:, -1] / self.image_areas

    def overlap_fraction(self) -> float:
        """The overlaps as a fraction of the pixels of all objects."""
        return float(self.overlaps.sum() / max(1, self.areas[self.objects()].sum()))

    def rectangles(self) -> NDArray[np.int64]:
        """Indices of the objects that fill their bounding box.

        Objects with a side below 8 pixels are excluded: outlines of that size often fill their box.
        """
        width, height = self.boxes[:, 2], self.boxes[:, 3]
        full = (self.areas == width * height) & (np.minimum(width, height) >= 8)
        return np.flatnonzero(full & ~self.crowd)

    def cooccurrence(self) -> NDArray[np.int64]:
        """The number of images with both of two classes, (L, L); zero for the background."""
        shown = self.shows().astype(np.int64)
        return shown.T @ shown

    def figures(self) -> DataFigures:
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
                "mean": rounded(per_image.mean()),
                "median": rounded(np.median(per_image)),
                "max": int(per_image.max()),
            },
            "image_sizes": {
                "sizes": len({(image.width, image.height) for image in self.images}),
                "median_width": rounded(np.median(widths)),
                "median_height": rounded(np.median(heights)),
            },
            "objects": {
                **self.sizes(),
                "tiny": int((self.areas[objects] < TINY).sum()),
                "rectangles": len(self.rectangles()),
                "duplicates": len(self.duplicates),
            },
            "fractions": {
                "overlap": rounded(self.overlap_fraction()),
                "ignored": rounded(self.pixels[:, -1].sum() / self.pixels.sum()),
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

    def class_rows(self) -> list[ClassRow]:
        """The rows of `metrics/data/classes.csv`, which DVC plots."""
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
        """A histogram of the square roots of the areas of a class, or of all objects.

        Returns:
            The number of objects by the lower bound of each bin in pixels: 0, 1, 2, 4, 8, …
        """
        areas = self.areas[self.objects(label)]
        limits = [0, *(4**power for power in range(14))]
        counts = np.histogram(areas, [*limits, 1 << 62])[0].tolist()
        return {int(limit**0.5): n for limit, n in zip(limits, counts, strict=True)}

    def instance_counts(self, limit: int = 15) -> dict[str, int]:
        """A histogram of the number of objects per image; `>LIMIT` joins all higher numbers."""
        counts = np.bincount(self.instances().sum(axis=1)).tolist()
        bins = {str(n): images for n, images in enumerate(counts[: limit + 1])}
        return bins | ({f">{limit}": sum(counts[limit + 1 :])} if len(counts) > limit + 1 else {})

    def side_rows(self) -> list[SideRow]:
        """The rows of `metrics/data/sizes.csv`, which DVC plots; empty bins at the end are cut."""
        longest = max((side for side, n in self.side_counts().items() if n), default=0)
        return [
            {"class": self.names[label], "side": side, "instances": n}
            for label in self.class_labels
            for side, n in self.side_counts(label).items()
            if side <= longest
        ]


def measure(selection: Instances, masks: Path, workers: int) -> DataStatistics:
    """Compute the statistics of a selection.

    Args:
        selection: images and annotations; their category ids are labels.
        masks: the directory of the masks, `STEM.png`.
        workers: the number of processes.

    Raises:
        UserError: a mask is missing, damaged or of another size than its image.
    """
    of_image: dict[int, list[Annotation]] = {image.id: [] for image in selection.images}
    for annotation in selection.annotations:
        of_image[annotation.image_id].append(annotation)
    names = ["background", *(category.name for category in selection.categories)]
    jobs = (
        _Job(image, of_image[image.id], masks / f"{image.stem}.png") for image in selection.images
    )
    areas, boxes, overlaps, pixels = [], [], [], []
    duplicates: list[tuple[int, int]] = []
    positions = np.zeros((IGNORE_INDEX + 1, GRID, GRID), np.int64)
    rows, columns = np.indices((GRID, GRID))
    done = 0
    measured = in_processes(_measure_image, jobs, workers)
    for counted in show_progress(measured, "statistics", len(selection.images)):
        areas.append(counted.areas)
        boxes.append(counted.boxes)
        overlaps.append(counted.overlap)
        pixels.append([*counted.pixels[: len(names)], counted.pixels[IGNORE_INDEX]])
        duplicates += [(done + first, done + second) for first, second in counted.duplicates]
        positions[counted.grid, rows, columns] += 1
        done += len(counted.areas)
    annotations = [a for image in selection.images for a in of_image[image.id]]
    return DataStatistics(
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
        positions=positions[: len(names)],
        duplicates=duplicates,
    )


@dataclass
class _Job:
    image: ImageRecord
    annotations: list[Annotation]
    mask: Path


@dataclass
class _Counted:
    """Statistics of one image: `pixels` (256,) by label, `grid` (GRID, GRID) of labels."""

    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    overlap: int
    duplicates: list[tuple[int, int]]
    pixels: list[int]
    grid: NDArray[np.uint8]


def _measure_image(job: _Job) -> _Counted:
    width, height = job.image.width, job.image.height
    encoded = [encode_annotation(a, width, height, whole=True) for a in job.annotations]
    areas = coco_mask.area(encoded).astype(np.int64)
    objects = [e for e, a in zip(encoded, job.annotations, strict=True) if not a.iscrowd]
    object_areas = sum(int(n) for n, a in zip(areas, job.annotations, strict=True) if not a.iscrowd)
    union = int(coco_mask.area(coco_mask.merge(objects))) if objects else 0
    first: dict[bytes, int] = {}
    duplicates = []
    for index, (area, region) in enumerate(zip(areas, encoded, strict=True)):
        original = first.setdefault(region["counts"], index)
        if area and original != index:
            duplicates.append((original, index))
    pixels, grid = _read_mask(job.mask, width, height)
    boxes = coco_mask.toBbox(encoded).astype(np.int64)
    return _Counted(areas, boxes, object_areas - union, duplicates, pixels, grid)


def _read_mask(path: Path, width: int, height: int) -> tuple[list[int], NDArray[np.uint8]]:
    """The number of pixels of each of 256 labels, and the labels at GRID x GRID points."""
    try:
        with Image.open(path) as mask:
            if mask.mode == "P" and mask.size == (width, height):
                grid = mask.resize((GRID, GRID), Image.Resampling.NEAREST)
                return mask.histogram(), np.asarray(grid)
        problem = f"is not a mask of {width} x {height} pixels"
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise
        problem = "is damaged"
    raise UserError(f"{path} {problem}: run `dvc repro --force --single-item mask`")


def _median(values: NDArray[np.int64]) -> float | None:
    return rounded(np.median(values)) if len(values) else None
