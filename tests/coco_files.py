"""Small COCO instances files, built entry by entry."""

import json
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Literal

import msgspec

from cocoseg.coco.instances import Annotation, read_instances
from cocoseg.curation.classes import ClassSpec
from cocoseg.curation.exclusions import Exclusion
from cocoseg.curation.selection import Prefer, Selection, select

SQUARE = [[2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]]
CATEGORIES = [{"id": 10, "name": "cat"}, {"id": 20, "name": "dog"}, {"id": 30, "name": "cow"}]


def image(id: int, width: int = 20, height: int = 10, **others: Any) -> dict[str, Any]:
    return {"id": id, "file_name": f"{id}.jpg", "width": width, "height": height, **others}


def annotation(id: int, image_id: int, segmentation: Any = SQUARE, **others: Any) -> dict[str, Any]:
    return {
        "id": id,
        "image_id": image_id,
        "category_id": 10,
        "segmentation": segmentation,
        "iscrowd": 0,
        **others,
    }


def write_instances(
    path: Path, images: list[Any], annotations: list[Any], categories: Any = CATEGORIES
) -> Path:
    document = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(document))
    return path


def select_from(
    path: Path,
    classes: Sequence[ClassSpec] | Literal["all"] = ("cat", "dog"),
    *,
    max_instances: int = 10,
    max_images: int = 100,
    prefer: Prefer = "rare",
    seed: int = 0,
    exclude: Set[Exclusion] = frozenset(),
    out_of_bounds: Literal["drop", "clip"] = "drop",
    empty_fraction: float = 0.0,
) -> Selection:
    return select(
        read_instances(path),
        classes,
        max_instances=max_instances,
        max_images=max_images,
        prefer=prefer,
        seed=seed,
        exclude=exclude,
        out_of_bounds=out_of_bounds,
        empty_fraction=empty_fraction,
    )


def painted(segmentation: Any, label: int, id: int = 1, iscrowd: Literal[0, 1] = 0) -> Annotation:
    """An annotation of a selection, with a label as its category."""
    raw = msgspec.Raw(json.dumps(segmentation).encode())
    return Annotation(id, 1, label, raw, iscrowd=iscrowd)
