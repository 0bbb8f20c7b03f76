"""One page that shows the data before anyone trains on it (inspect)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cocoseg.coco.instances import ImageRecord
from cocoseg.core.labels import PALETTE
from cocoseg.curation.splits import SPLITS
from cocoseg.reports.data.galleries import (
    Inputs,
    contact_sheets,
    dropped_annotations,
    dropped_images,
    near_duplicates,
)
from cocoseg.reports.data.measure import TINY, Measured
from cocoseg.reports.data.warnings import DataWarning
from cocoseg.reports.html import bar_chart, class_colors, heat_map, read_json, render_page

_IN_TABLES = 20
"""Tables of each class with each, and heat maps, are of the most frequent classes."""


def make_data_page(
    data: Measured, data_warnings: Sequence[DataWarning], inputs: Inputs, metrics: Path
) -> str:
    """The page as HTML; the folder of metrics has filter.json, mask.json and split.json.

    Raises UserError where a file is missing or damaged.
    """
    shown = data.shows().sum(axis=0)
    frequent = sorted(sorted(data.class_labels, key=lambda k: -shown[k])[:_IN_TABLES])
    filtered = read_json(metrics / "filter.json")
    splits = read_json(metrics / "split.json")
    return render_page(
        Path(__file__).with_name("data.html.jinja"),
        data=data,
        figures=data.figures(),
        data_warnings=data_warnings,
        filtered=filtered,
        masks=read_json(metrics / "mask.json"),
        splits={name: splits[name] for name in SPLITS},
        colors=class_colors(data.names),
        sheets=contact_sheets(data, inputs),
        dropped_images=dropped_images(data, inputs),
        dropped_annotations=dropped_annotations(data, inputs),
        near_duplicates=splits.get("near_duplicates", {"pairs": 0, "across_splits": 0}),
        pairs=near_duplicates(data, inputs),
        sizes={data.names[label]: data.sizes(label) for label in data.class_labels},
        sides=_draw_sides(data),
        crowds=_draw_instances(data),
        places=[_draw_places(data, label, int(shown[label])) for label in frequent if shown[label]],
        together=[
            (data.names[row], [_fraction(data.together()[row, c], shown[row]) for c in frequent])
            for row in frequent
        ],
        image_sizes=Counter((image.width, image.height) for image in data.images).most_common(8),
        shapes=_shapes(data.images),
        mostly_ignored=int((data.ignored_fractions() > 0.5).sum()),
        tiny=TINY,
    )


def _fraction(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _draw_sides(data: Measured) -> str:
    counts = data.side_counts()
    used = [side for side, n in counts.items() if n] or [1]
    shown = {side: n for side, n in counts.items() if min(used) <= side <= max(used)}
    bars = {str(side): float(n) for side, n in shown.items()}
    x_label = "root of the area in pixels, from this to twice of it"
    return bar_chart(bars, x_label=x_label, y_label="objects")


def _draw_instances(data: Measured) -> str:
    counts = np.bincount(data.instances().sum(axis=1))
    most = 15
    bars = {str(n): float(images) for n, images in enumerate(counts[: most + 1].tolist())}
    if len(counts) > most + 1:
        bars[f">{most}"] = float(counts[most + 1 :].sum())
    return bar_chart(bars, x_label="objects in an image", y_label="images")


def _draw_places(data: Measured, label: int, images: int) -> dict[str, Any]:
    counts = data.places[label]
    where = "nowhere"
    if counts.any():
        centers = (np.arange(len(counts)) + 0.5) / len(counts)
        down, right = (
            float((counts.sum(axis=axis) * centers).sum() / counts.sum()) for axis in (1, 0)
        )
        where = f"on average {right:.0%} from the left and {down:.0%} from the top"
    return {
        "name": data.names[label],
        "picture": heat_map(counts, PALETTE[label]),
        "where": where,
        "most": _fraction(counts.max(), images),
    }


def _shapes(images: Iterable[ImageRecord]) -> Counter[str]:
    names = {1: "landscape", 0: "square", -1: "portrait"}
    return Counter(names[(i.width > i.height) - (i.width < i.height)] for i in images)
