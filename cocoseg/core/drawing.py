"""Masks drawn over images, errors of a prediction, and example panels with a legend."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cocoseg.core.labels import IGNORE_INDEX, PALETTE, Color, Labels

RGBImage = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

ERRORS: dict[str, Color] = {
    "missed": (0, 114, 178),
    "false alarm": (230, 130, 0),
    "wrong class": (200, 60, 160),
}
"""Kinds of errors and their colors: a class predicted as background, background predicted as a
class, one class predicted as another. The colors suit color-blind readers (Okabe and Ito, 2008)."""

_INK = (60, 60, 60)
_MARGIN = 8
_TEXT_SIZE = 14
_LINE = _TEXT_SIZE + _MARGIN
_FONT = ImageFont.load_default(_TEXT_SIZE)  # ASCII
_WIDE_FONT = ImageFont.truetype(  # Latin, Greek, Cyrillic, Arabic and others, but not Chinese
    str(files("matplotlib") / "mpl-data/fonts/ttf/DejaVuSans.ttf"), _TEXT_SIZE
)


def _font(text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _FONT if text.isascii() else _WIDE_FONT


def _is_legible(text: str) -> bool:
    """Whether the fonts have all characters of the text; they draw others as the same box."""
    box = bytes(_WIDE_FONT.getmask("\U0010fffe"))
    return text.isascii() or not any(bytes(_WIDE_FONT.getmask(c)) == box for c in text)


def overlay_labels(image: RGBImage, labels: Labels, opacity: float = 0.6) -> RGBImage:
    """Draw labels over an image; the background stays clear.

    Regions have opaque borders, so that small and pale ones are visible.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (H, W).
        opacity: 0 to 1, inside the regions, in steps of 1/255.

    Returns:
        A new image, uint8 (H, W, 3).
    """
    drawn, colors = Image.fromarray(image), Image.fromarray(labels, mode="P")
    colors.putpalette(PALETTE.tobytes())
    mask = Image.fromarray(labels).point([0] + [round(255 * opacity)] * 255)
    drawn.paste(colors.convert("RGB"), mask=mask)  # twice as fast as with NumPy
    result = np.array(drawn)
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    edge &= labels > 0
    result[edge] = PALETTE[labels[edge]]
    return result


def overlay_errors(image: RGBImage, ground_truth: Labels, prediction: Labels) -> RGBImage:
    """Draw the wrong pixels of a prediction, in the colors of ERRORS, over a pale gray image.

    Pixels that the ground truth ignores are never errors. All arrays are (H, W).
    """
    gray = np.asarray(Image.fromarray(image).convert("L"), np.float64)
    drawn = np.repeat((gray * 0.5 + 127)[..., None], 3, axis=2)
    wrong = (ground_truth != prediction) & (ground_truth != IGNORE_INDEX)
    kinds = (
        wrong & (prediction == 0),
        wrong & (ground_truth == 0),
        wrong & (ground_truth != 0) & (prediction != 0),
    )
    for pixels, color in zip(kinds, ERRORS.values(), strict=True):
        drawn[pixels] = color
    return drawn.round().astype(np.uint8)


def draw_panels(image: RGBImage, ground_truth: Labels, prediction: Labels) -> dict[str, RGBImage]:
    """The four panels of an example, by title."""
    return {
        "image": image,
        "ground truth": overlay_labels(image, ground_truth),
        "prediction": overlay_labels(image, prediction),
        "errors": overlay_errors(image, ground_truth, prediction),
    }


def draw_example(
    image: RGBImage,
    ground_truth: Labels,
    prediction: Labels,
    names: Sequence[str],
    caption: str,
    panel_height: int = 240,
) -> Image.Image:
    """Draw the panels of an example side by side, with a caption above and a legend below.

    Args:
        image: uint8 (H, W, 3).
        ground_truth: uint8 (H, W).
        prediction: uint8 (H, W).
        names: class names in label order, background first; the legend has those that occur.
        caption: one line.
        panel_height: pixels of a panel; panels of panoramas are lower.
    """
    panels = draw_panels(image, ground_truth, prediction)
    # A panorama is scaled to a width that fits the screen.
    scale = min(panel_height / image.shape[0], 2 * panel_height / image.shape[1])
    width = max(1, round(image.shape[1] * scale))
    height = max(1, round(image.shape[0] * scale))
    page_width = max(len(panels) * (width + _MARGIN) + _MARGIN, 480)
    labels = np.union1d(ground_truth, prediction)
    entries = [_LegendEntry("labels:"), *_class_entries(labels, names), _LegendEntry("errors:")]
    entries += [_LegendEntry(name, color) for name, color in ERRORS.items()]
    legend = _place_legend(entries, page_width)
    top = 2 * _LINE + _MARGIN
    bottom = top + height + _MARGIN
    page = Image.new("RGB", (page_width, bottom + _LINE * (legend[-1][2] + 1)), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), caption, (0, 0, 0), _font(caption))
    for column, (title, panel) in enumerate(panels.items()):
        left = _MARGIN + column * (width + _MARGIN)
        draw.text((left, _MARGIN + _LINE), title, _INK, _FONT)
        scaled = Image.fromarray(panel).resize((width, height), Image.Resampling.LANCZOS)
        page.paste(scaled, (left, top))
    _draw_legend(draw, legend, bottom)
    return page


def add_legend(
    image: Image.Image, labels: NDArray[np.integer], names: Sequence[str]
) -> Image.Image:
    """Add a legend below an image; its text grows with the image.

    Args:
        image: RGB.
        labels: the labels to list, integers (N,); the background is left out.
        names: class names in label order, background first.

    Returns:
        An image of the same width. Without a label to list it is `image`.
    """
    scale = max(1, image.width // 800)
    width = max(1, image.width // scale)
    legend = _place_legend(_class_entries(labels, names), width)
    if not legend:
        return image
    strip = Image.new("RGB", (width, _MARGIN + _LINE * (legend[-1][2] + 1)), (255, 255, 255))
    _draw_legend(ImageDraw.Draw(strip), legend, _MARGIN)
    height = scale * strip.height
    page = Image.new("RGB", (image.width, image.height + height))
    page.paste(image)
    page.paste(strip.resize((image.width, height)), (0, image.height))
    return page


@dataclass(frozen=True)
class _LegendEntry:
    """A color and its meaning, or a heading without a color."""

    text: str
    color: Color | None = None

    @property
    def indent(self) -> int:
        return _LINE if self.color else 0


def _class_entries(labels: NDArray[np.integer], names: Sequence[str]) -> list[_LegendEntry]:
    """All labels except the background."""
    entries = []
    for label in labels[labels > 0].tolist():
        red, green, blue = PALETTE[label].tolist()
        name = "ignored (not scored)" if label == IGNORE_INDEX else names[label]
        name = name if _is_legible(name) else f"class {label}"
        entries.append(_LegendEntry(name, (red, green, blue)))
    return entries


def _place_legend(
    entries: Sequence[_LegendEntry], width: int
) -> list[tuple[_LegendEntry, int, int]]:
    """Each entry with its left edge in pixels and its line; long legends wrap."""
    placed = []
    left, line = _MARGIN, 0
    for entry in entries:
        length = entry.indent + round(_font(entry.text).getlength(entry.text)) + 2 * _MARGIN
        if left > _MARGIN and left + length > width:
            left, line = _MARGIN, line + 1
        placed.append((entry, left, line))
        left += length
    return placed


def _draw_legend(
    draw: ImageDraw.ImageDraw, placed: Iterable[tuple[_LegendEntry, int, int]], top: int
) -> None:
    for entry, left, line in placed:
        line_top = top + line * _LINE
        if entry.color:
            box = (left, line_top, left + _TEXT_SIZE, line_top + _TEXT_SIZE)
            draw.rectangle(box, entry.color)
        draw.text((left + entry.indent, line_top - 2), entry.text, _INK, _font(entry.text))
