"""Pages of one file: styles and pictures inside, no scripts, nothing asked of the network.

Charts are drawn by matplotlib: SVG as data URIs, sharp on screens and in print.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.core.labels import PALETTE

Points = Sequence[tuple[float, float]]

_INK, _GRID = "#555555", "#e3e3e3"
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
    "svg.hashsalt": "cocoseg",  # else the parts' names are drawn at random
    "xtick.color": _INK,
    "ytick.color": _INK,
    "ytick.major.size": 0,
}


def render_page(template: Path, **values: Any) -> str:
    """The HTML of a template, which may use those that lie beside this file."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=score, count=count, size=size, words=words, plain=plain, jpeg=jpeg_uri
    )
    return environment.get_template(template.name).render(values)


def jpeg_uri(content: bytes) -> str:
    """A JPEG file's content as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file, or `default` where there is no file.

    Raises UserError when it is damaged.
    """
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged: remove it, and `dvc repro` makes it anew") from None


def class_colors(names: Sequence[str]) -> dict[str, str]:
    """The colour of each class as `#rrggbb`, as in the pictures; names are in label order.

    The background, which pictures leave clear, is grey.
    """
    return {
        name: hex_color(PALETTE[label]) if label else "#7a8490" for label, name in enumerate(names)
    }


def hex_color(color: Sequence[int]) -> str:
    """RGB of 0 to 255 as `#rrggbb`."""
    return "#" + "".join(f"{int(part):02x}" for part in color)


def score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"  # noqa: RUF001


def count(value: float) -> str:
    return f"{value:,}"


def size(value: float) -> str:
    """Bytes as people read them: `5.3 MB`."""
    units = ["bytes", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def plain(value: Any) -> str:
    """A parameter or figure as people write it."""
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
    return key.replace("_", " ").replace("miou", "mean IoU")


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
    """Draw lines through points (x, y), each coloured by the name of its series.

    The vertical axis goes from zero to `highest`, if given; the horizontal one spans the points or
    `x_limits`, with marks at whole numbers only if `whole_x`. At `marked_x` stands a dashed line;
    `diagonal` draws the line of equal x and y, `dots` a dot on every point.
    """
    figure = Figure(figsize=(4.4, 2.5), layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        xs, ys = zip(*points, strict=True)
        marker = "o" if dots or len(points) == 1 else ""  # a line of one point would not be seen
        axes.plot(xs, ys, color=colors[name], linewidth=2, marker=marker, markersize=5)
    if diagonal:
        axes.axline((0, 0), slope=1, color=_INK, linewidth=1, linestyle="--")
    if marked_x is not None:
        axes.axvline(marked_x, color=_INK, linewidth=1, linestyle="--")
    axes.set(xlabel=x_label, ylabel=y_label, xlim=x_limits)
    axes.set_ylim(bottom=0, top=highest)
    if whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return _data_uri(figure)


@rc_context(_STYLE)
def scatter_chart(points: Points, *, x_label: str, y_label: str) -> str:
    """Draw a dot for each point (x, y) of 0 to 1, and the line of equal x and y."""
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.axline((0, 0), slope=1, color=_INK, linewidth=1, linestyle="--")
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, "o", color="#1f5fa8", markersize=5, alpha=0.6, markeredgewidth=0)
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return _data_uri(figure)


@rc_context(_STYLE)
def bar_chart(bars: Mapping[str, float], *, x_label: str, y_label: str) -> str:
    """Draw a bar for each entry, its name below it."""
    figure = Figure(figsize=(4.4, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(bars)), list(bars.values()), color="#1f5fa8", width=0.8)
    axes.set_xticks(range(len(bars)), list(bars))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set(xlabel=x_label, ylabel=y_label)
    return _data_uri(figure)


def heat_map(counts: NDArray[np.int64], color: Sequence[int]) -> str:
    """A picture of counts (H, W), a pixel each, from white at none to `colour` at the highest."""
    depth = (counts / max(1, counts.max()))[..., None]
    pixels = (255 - depth * (255 - np.asarray(color))).round().astype(np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, format="png")
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()


def _data_uri(figure: Figure) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", metadata={"Creator": None, "Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(picture.getvalue()).decode()
