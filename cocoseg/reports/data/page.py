"""The data page: one HTML page about the selected data, before training."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from cocoseg.coco.instances import ImageRecord
from cocoseg.core.labels import PALETTE
from cocoseg.curation.splits import SPLITS
from cocoseg.reports.data.galleries import (
    Inputs,
    class_galleries,
    draw_empty_images,
    near_duplicate_galleries,
    rejected_annotations,
    rejected_images,
)
from cocoseg.reports.data.measure import TINY, DataStatistics
from cocoseg.reports.data.warnings import DataWarning
from cocoseg.reports.html import bar_chart, class_colors, heat_map, read_json, render_page

_TABLE_CLASSES = 20
"""Heat maps and the table of co-occurrence show at most this number of classes."""


def make_data_page(
    data: DataStatistics, data_warnings: Sequence[DataWarning], inputs: Inputs, metrics: Path
) -> str:
    """Make the data page as HTML.

    Args:
        data: the statistics of the selection.
        data_warnings: shown first, in this order.
        inputs: the data that the galleries show.
        metrics: a directory with `filter.json`, `mask.json` and `split.json`.

    Raises:
        UserError: a file is missing or damaged.
    """
    shown = data.shows().sum(axis=0)
    frequent = sorted(sorted(data.class_labels, key=lambda k: -shown[k])[:_TABLE_CLASSES])
    both = data.cooccurrence()
    splits = read_json(metrics / "split.json")
    empty = {data.images[index].stem for index in data.empty_images()}
    return render_page(
        Path(__file__).with_name("data.html.jinja"),
        names=data.names,
        figures=data.figures(),
        data_warnings=data_warnings,
        filtered=read_json(metrics / "filter.json"),
        masks=read_json(metrics / "mask.json"),
        splits={name: splits[name] for name in SPLITS},
        colors=class_colors(data.names),
        class_galleries=class_galleries(data, inputs),
        empty={name: sum(stem in empty for stem in inputs.splits.get(name, ())) for name in SPLITS},
        empty_images=draw_empty_images(data, inputs),
        rejected_images=rejected_images(data, inputs),
        rejected_annotations=rejected_annotations(data, inputs),
        near_duplicates=splits.get("near_duplicates", {"pairs": 0, "across_splits": 0}),
        near_duplicate_galleries=near_duplicate_galleries(data, inputs),
        sizes={data.names[label]: data.sizes(label) for label in data.class_labels},
        size_chart=_draw_sizes(data),
        instances_chart=bar_chart(
            data.instance_counts(), x_label="objects in an image", y_label="images"
        ),
        positions=[
            _draw_positions(data, label, int(shown[label])) for label in frequent if shown[label]
        ],
        cooccurrence=[
            (data.names[row], [_fraction(both[row, column], shown[row]) for column in frequent])
            for row in frequent
        ],
        image_sizes=Counter((image.width, image.height) for image in data.images).most_common(8),
        shapes=_shapes(data.images),
        mostly_ignored=int((data.ignored_fractions() > 0.5).sum()),
        tiny=TINY,
    )


def _fraction(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _draw_sizes(data: DataStatistics) -> str:
    counts = data.side_counts()
    used = [side for side, n in counts.items() if n] or [1]
    bars = {str(side): float(n) for side, n in counts.items() if min(used) <= side <= max(used)}
    x_label = "square root of the area in pixels (lower bound)"
    return bar_chart(bars, x_label=x_label, y_label="objects")


class _Positions(TypedDict):
    """The heat map of a class; `highest` is the fraction of images at its darkest point."""

    name: str
    map: str
    center: str
    highest: float


def _draw_positions(data: DataStatistics, label: int, images: int) -> _Positions:
    counts = data.positions[label]
    center = "in no mask"
    if counts.any():
        points = (np.arange(len(counts)) + 0.5) / len(counts)
        down, right = (
            float((counts.sum(axis=axis) * points).sum() / counts.sum()) for axis in (1, 0)
        )
        center = f"center {right:.0%} from the left, {down:.0%} from the top"
    return {
        "name": data.names[label],
        "map": heat_map(counts, PALETTE[label]),
        "center": center,
        "highest": _fraction(counts.max(), images),
    }


def _shapes(images: Iterable[ImageRecord]) -> Counter[str]:
    names = {1: "landscape", 0: "square", -1: "portrait"}
    return Counter(names[(i.width > i.height) - (i.width < i.height)] for i in images)
