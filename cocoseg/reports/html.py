"""Self-contained HTML pages: inline styles and images, no scripts, no network access.

Matplotlib draws the charts as SVG, which is sharp on screens and in print.
"""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.core.labels import PALETTE

Points = Sequence[tuple[float, float]]
"""Pairs (x, y)."""

_INK, _GRID = "#555555", "#dadada"
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": _INK,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": _GRID,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "cocoseg",  # element ids are random otherwise
    "xtick.color": _INK,
    "ytick.color": _INK,
    "ytick.major.size": 0,
}


def render_page(template: Path, **values: Any) -> str:
    """Render a template, which can include templates of its directory and of this one.

    Args:
        template: the path of the template.
        values: its variables. An undefined variable raises an error.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=score,
        mean_score=mean_score,
        count=count,
        size=size,
        words=words,
        plain=plain,
        jpeg=jpeg_uri,
        code_spans=code_spans,
    )
    return environment.get_template(template.name).render(values)


def jpeg_uri(content: bytes) -> str:
    """Encode the content of a JPEG file as a data URI."""
    return _data_uri("image/jpeg", io.BytesIO(content))


def image_uri(image: Image.Image) -> str:
    """Encode an image as the data URI of a JPEG."""
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=85)
    return _data_uri("image/jpeg", content)


def read_json(path: Path, default: Any = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        default: returned if the file does not exist; None makes that a FileNotFoundError.

    Raises:
        UserError: the file is damaged.
    """
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged: remove it, then run `dvc repro`") from None


def class_colors(names: Sequence[str]) -> dict[str, str]:
    """Map each class to its color in masks, as `#rrggbb`; the background is gray.

    Args:
        names: the class names in label order, background first.
    """
    return {
        name: hex_color(PALETTE[label]) if label else "#7a8490" for label, name in enumerate(names)
    }


def hex_color(color: Sequence[int]) -> str:
    """Format RGB values from 0 to 255 as `#rrggbb`."""
    return "#" + "".join(f"{int(value):02x}" for value in color)


def score(value: float | None) -> str:
    """Format a score with three decimals, or as a dash if it is undefined."""
    return "–" if value is None else f"{value:.3f}"  # noqa: RUF001


def mean_score(value: float | None) -> str:
    """Format a mean IoU with three decimals, or as `undefined`."""
    return "undefined" if value is None else score(value)


def count(value: float) -> str:
    """Format a number with thousands separators."""
    return f"{value:,}"


def size(value: float) -> str:
    """Format a number of bytes, such as `5.3 MB`."""
    units = ["bytes", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def plain(value: Any) -> str:
    """Format a parameter or a figure of any type."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, int) and abs(value) >= 100_000:
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def words(key: str) -> str:
    """Format a key of a JSON file as words."""
    return key.replace("_", " ").replace("miou", "mean IoU")


def code_spans(text: str) -> Markup:
    """Turn text in backticks into HTML code elements."""
    # Markup.join, which re.sub would call, escapes again.
    return Markup(re.sub(r"`(.*?)`", r"<code>\1</code>", str(escape(text))))


# --- Charts ---------------------------------------------------------------------------------------


@rc_context(_STYLE)
def line_chart(
    series: Mapping[str, Points],
    colors: Mapping[str, str],
    *,
    x_label: str,
    y_label: str = "",
    x_limits: tuple[float, float] | None = None,
    whole_x: bool = False,
    marked_x: float | None = None,
    highest: float | None = None,
    diagonal: bool = False,
    dots: bool = False,
) -> str:
    """Draw a line for each series; return an SVG data URI.

    Args:
        series: the points of each series by its name.
        colors: a color for each name.
        x_label: the label of the horizontal axis.
        y_label: the label of the vertical axis.
        x_limits: the range of the horizontal axis; the range of the points by default.
        whole_x: place ticks of the horizontal axis at whole numbers only.
        marked_x: the position of a dashed vertical line.
        highest: the upper end of the vertical axis, which starts at zero.
        diagonal: draw a dashed line where x equals y.
        dots: draw a dot at each point.
    """
    figure = Figure(figsize=(4.4, 2.5), layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        xs, ys = zip(*points, strict=True)
        marker = "o" if dots or len(points) == 1 else ""  # a line through one point is invisible
        axes.plot(xs, ys, color=colors[name], linewidth=2, marker=marker, markersize=5)
    if diagonal:
        axes.axline((0, 0), slope=1, color=_INK, linewidth=1, linestyle="--")
    if marked_x is not None:
        axes.axvline(marked_x, color=_INK, linewidth=1, linestyle="--")
    axes.set(xlabel=x_label, ylabel=y_label, xlim=x_limits)
    axes.set_ylim(bottom=0, top=highest)
    if whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return _svg_uri(figure)


@rc_context(_STYLE)
def scatter_chart(points: Points, *, x_label: str, y_label: str) -> str:
    """Draw a dot for each point, from 0 to 1, and the diagonal; return an SVG data URI."""
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.axline((0, 0), slope=1, color=_INK, linewidth=1, linestyle="--")
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, "o", color="#1f5fa8", markersize=5, alpha=0.6, markeredgewidth=0)
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return _svg_uri(figure)


@rc_context(_STYLE)
def bar_chart(bars: Mapping[str, float], *, x_label: str, y_label: str) -> str:
    """Draw a bar for each entry, with its name below; return an SVG data URI."""
    figure = Figure(figsize=(4.4, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(bars)), list(bars.values()), color="#1f5fa8", width=0.8)
    axes.set_xticks(range(len(bars)), list(bars))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set(xlabel=x_label, ylabel=y_label)
    return _svg_uri(figure)


def heat_map(counts: NDArray[np.int64], color: Sequence[int]) -> str:
    """Draw counts (H, W) as an image of H x W pixels; return a PNG data URI.

    Args:
        counts: zero is white, the highest count has `color`.
        color: RGB values from 0 to 255.
    """
    depth = (counts / max(1, counts.max()))[..., None]
    pixels = (255 - depth * (255 - np.asarray(color))).round().astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="png")
    return _data_uri("image/png", content)


def _svg_uri(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(
        content, format="svg", metadata={"Creator": None, "Date": None}, transparent=True
    )
    return _data_uri("image/svg+xml", content)


def _data_uri(kind: str, content: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
