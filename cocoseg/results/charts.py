"""Line charts as SVG: text that goes into a page, sharp on screens and in print."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 390, 8, 190
"""The edges of the plotted area within the picture."""
_INK, _GRID = "#555", "#e3e3e3"


def line_chart(
    title: str,
    series: Mapping[str, Points],
    colours: Mapping[str, str],
    *,
    x_label: str,
    y_label: str = "",
    x_limits: tuple[float, float] | None = None,
    whole_x: bool = False,
    marked_x: float | None = None,
    diagonal: bool = False,
    dots: bool = False,
) -> str:
    """Draw lines through points (x, y), each coloured by the name of its series.

    The vertical axis goes from zero to a round number; the horizontal one spans the points or
    `x_limits`, with marks at whole numbers only if `whole_x`. At `marked_x` stands a dashed line;
    `diagonal` draws the line of equal x and y, `dots` a dot on every point.
    """
    xs, ys = zip(*(point for line in series.values() for point in line), strict=True)
    first_x, last_x = x_limits or (min(xs), max(*xs, min(xs) + 1))
    x_ticks = ticks(first_x, last_x, least_step=1 if whole_x else 0)
    y_ticks = ticks(0, max(ys) or 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first_x) / (last_x - first_x)
        up = y / y_ticks[-1]
        return (
            round(_LEFT + across * (_RIGHT - _LEFT), 1),
            round(_BOTTOM - up * (_BOTTOM - _TOP), 1),
        )

    dashes = f'fill="none" stroke="{_INK}" stroke-dasharray="4 4"'
    parts = []
    for tick in y_ticks:
        _, y = place(first_x, tick)
        parts.append(f'<path d="M{_LEFT} {y}H{_RIGHT}" stroke="{_GRID}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        if tick <= last_x:
            x, _ = place(tick, 0)
            parts.append(f'<path d="M{x} {_BOTTOM}v4" stroke="{_INK}"/>')
            parts.append(f'<text x="{x}" y="{_BOTTOM + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path d="M{_LEFT} {_BOTTOM}H{_RIGHT}" stroke="{_INK}"/>')
    parts.append(
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 5}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(11 {(_TOP + _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    if diagonal:
        end = min(last_x, y_ticks[-1])
        parts.append(f'<path d="{_path([place(0, 0), place(end, end)])}" {dashes}/>')
    if marked_x is not None:
        parts.append(f'<path d="M{place(marked_x, 0)[0]} {_TOP}V{_BOTTOM}" {dashes}/>')
    for name, line in series.items():
        placed = [place(x, y) for x, y in line]
        colour = colours[name]
        parts.append(f'<path d="{_path(placed)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if dots or len(placed) == 1:  # a line of one point would not be seen
            parts += [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in placed]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'font-size="11" fill="{_INK}">{"".join(parts)}</svg>'
    )


def ticks(low: float, high: float, least_step: float = 0) -> list[float]:
    """At most eight round numbers from `low` to `high`; the last is `high` or the next above.

    Their distance is 1, 2 or 5 times a power of ten, and at least `least_step`.
    """
    step = 10.0 ** math.floor(math.log10((high - low) / 6))
    step *= next(factor for factor in (1, 2, 5, 10) if step * factor * 6 >= (high - low) * 0.99)
    step = max(step, least_step)
    first, last = math.ceil(low / step - 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * k:.10g}") for k in range(first, last + 1)]


def _path(points: Points) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)
