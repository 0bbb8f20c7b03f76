"""How well planted mistakes come up in the label audit.

Of the objects of a sample, 5% are dropped, given another class, or shifted, in the images to train
on and in those to test alike; one network learns from such labels. Then the test images are planted
anew, several times, and each time audited: which share of the first N suspects are planted, where N
is the number of planted mistakes?

    python -m benchmarks.suspects --draws 10
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from cocoseg.annotations.instances import (
    Annotation,
    Instances,
    RunLengths,
    parse_segmentation,
)
from cocoseg.common.randomness import generator

ROOT = Path(__file__).resolve().parents[1]
SHARE = 0.05
SHIFT = 0.3
"""Of the sides of an object's box, each way."""


@dataclass(frozen=True)
class Planted:
    """A mistake: what was done to an annotation of an image."""

    kind: str
    original: Annotation


def plant(selection: Instances, seed: int) -> tuple[Instances, list[Planted]]:
    """The selection with one in twenty of its objects dropped, relabelled or shifted."""
    draw = generator(seed, "plant")
    objects = [a for a in selection.annotations if not a.iscrowd]
    chosen = draw.choice(len(objects), round(SHARE * len(objects)), replace=False).tolist()
    sizes = {image.id: (image.width, image.height) for image in selection.images}
    changed: dict[int, Annotation | None] = {}
    planted = []
    for place, index in enumerate(chosen):
        annotation = objects[index]
        kind = ("dropped", "relabelled", "shifted")[place % 3]
        planted.append(Planted(kind, annotation))
        if kind == "dropped":
            changed[annotation.id] = None
        elif kind == "relabelled":
            others = [c.id for c in selection.categories if c.id != annotation.category_id]
            changed[annotation.id] = msgspec.structs.replace(
                annotation, category_id=int(draw.choice(others))
            )
        else:
            changed[annotation.id] = _shifted(annotation, *sizes[annotation.image_id], draw)
    annotations = [changed.get(a.id, a) for a in selection.annotations]
    kept = [a for a in annotations if a is not None]
    return Instances(selection.images, kept, selection.categories), planted


def _shifted(
    annotation: Annotation, width: int, height: int, draw: np.random.Generator
) -> Annotation:
    """Moved by SHIFT of its box's sides, into the picture rather than out of it."""
    polygons = parse_segmentation(annotation.segmentation, width, height)
    assert not isinstance(polygons, RunLengths)  # the sample has those for crowds only
    points = [np.array(polygon).reshape(-1, 2) for polygon in polygons]
    low = np.min([p.min(axis=0) for p in points], axis=0)
    high = np.max([p.max(axis=0) for p in points], axis=0)
    size = np.array([width, height])
    step = SHIFT * (high - low)
    fits = np.stack([low - step >= 0, high + step <= size], axis=1)
    sign = [-1 if (f[0] and (not f[1] or draw.random() < 0.5)) else 1 for f in fits]
    moved = [np.clip(p + step * sign, 0, size).round(2).ravel().tolist() for p in points]
    return msgspec.structs.replace(annotation, segmentation=msgspec.Raw(msgspec.json.encode(moved)))
