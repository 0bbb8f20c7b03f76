"""Pictures of labels: overlays on photos, errors, and example panels with a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cocoseg.core.labels import IGNORE_INDEX, PALETTE

RGBImage = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

Color = tuple[int, int, int]

ERRORS: dict[str, Color] = {
    "missed": (0, 114, 178),
    "false alarm": (230, 130, 0),
    "wrong class": (200, 60, 160),
}
"""Kinds of errors: a class taken for background, background for a class, a class for another. The
colours are told apart by colour-blind people too (after Okabe and Ito, 2008)."""

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
    """Whether the fonts have all its characters, where others would all be the same box."""
    box = bytes(_WIDE_FONT.getmask("\U0010fffe"))
    return text.isascii() or not any(bytes(_WIDE_FONT.getmask(c)) == box for c in text)


def overlay_labels(photo: RGBImage, labels: NDArray[np.uint8], opacity: float = 0.6) -> RGBImage:
    """The photo (H, W, 3) with labels (H, W) in their colours over it; background stays clear.

    Regions have full-colour borders, so that small and pale ones are seen as well.
    """
    shown = (labels > 0)[..., None]
    mixed = photo * (1 - opacity) + PALETTE[labels] * opacity
    mixed = np.where(shown, mixed, photo)
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differs = np.diff(labels.astype(np.int16), axis=axis) != 0
        ahead = [slice(None), slice(None)]
        behind = [slice(None), slice(None)]
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        edge[tuple(ahead)] |= differs
        edge[tuple(behind)] |= differs
    edge &= labels > 0
    mixed[edge] = PALETTE[labels][edge]
    return mixed.round().astype(np.uint8)


def overlay_errors(
    photo: RGBImage, ground_truth: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> RGBImage:
    """The photo (H, W, 3), pale and grey, with wrong pixels of labels (H, W) in ERRORS' colours.

    Void pixels of the truth are no errors.
    """
    gray = np.asarray(Image.fromarray(photo).convert("L"), np.float64)
    picture = np.repeat((gray * 0.5 + 127)[..., None], 3, axis=2)
    wrong = (ground_truth != prediction) & (ground_truth != IGNORE_INDEX)
    kinds = (
        wrong & (prediction == 0),
        wrong & (ground_truth == 0),
        wrong & (ground_truth != 0) & (prediction != 0),
    )
    for pixels, color in zip(kinds, ERRORS.values(), strict=True):
        picture[pixels] = color
    return picture.round().astype(np.uint8)


def draw_panels(
    photo: RGBImage, ground_truth: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> dict[str, RGBImage]:
    """The four views of an example, by title."""
    return {
        "image": photo,
        "ground truth": overlay_labels(photo, ground_truth),
        "prediction": overlay_labels(photo, prediction),
        "errors": overlay_errors(photo, ground_truth, prediction),
    }


def draw_example(
    photo: RGBImage,
    ground_truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    names: Sequence[str],
    caption: str,
    panel_height: int = 240,
) -> Image.Image:
    """Photo, truth, prediction and errors side by side, a caption above and a legend below.

    `names` are the classes' names in label order, background first; the legend has those that
    occur.
    """
    panels = draw_panels(photo, ground_truth, prediction)
    # A very long photo is shown smaller rather than beyond all screens.
    scale = min(panel_height / photo.shape[0], 2 * panel_height / photo.shape[1])
    width = max(1, round(photo.shape[1] * scale))
    height = max(1, round(photo.shape[0] * scale))
    page_width = max(len(panels) * (width + _MARGIN) + _MARGIN, 480)
    legend = _place_legend(_legend_entries(np.union1d(ground_truth, prediction), names), page_width)
    top = 2 * _LINE + _MARGIN
    bottom = top + height + _MARGIN
    page = Image.new("RGB", (page_width, bottom + _LINE * (legend[-1][2] + 1)), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), caption, (0, 0, 0), _font(caption))
    for column, (title, picture) in enumerate(panels.items()):
        left = _MARGIN + column * (width + _MARGIN)
        draw.text((left, _MARGIN + _LINE), title, _INK, _FONT)
        scaled = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        page.paste(scaled, (left, top))
    for entry, left, line in legend:
        line_top = bottom + line * _LINE
        if entry.color:
            box = (left, line_top, left + _TEXT_SIZE, line_top + _TEXT_SIZE)
            draw.rectangle(box, entry.color)
        draw.text((left + entry.indent, line_top - 2), entry.text, _INK, _font(entry.text))
    return page


@dataclass(frozen=True)
class _LegendEntry:
    """A colour and its meaning, or a heading, which has no colour."""

    text: str
    color: Color | None = None

    @property
    def indent(self) -> int:
        return _LINE if self.color else 0


def _legend_entries(labels: NDArray[np.uint8], names: Sequence[str]) -> list[_LegendEntry]:
    """The labels but the background, then the kinds of errors."""
    entries = [_LegendEntry("labels:")]
    for label in labels[labels > 0].tolist():
        red, green, blue = PALETTE[label].tolist()
        name = "void (not scored)" if label == IGNORE_INDEX else names[label]
        name = name if _is_legible(name) else f"class {label}"
        entries.append(_LegendEntry(name, (red, green, blue)))
    entries.append(_LegendEntry("errors:"))
    return entries + [_LegendEntry(name, color) for name, color in ERRORS.items()]


def _place_legend(
    entries: Sequence[_LegendEntry], width: int
) -> list[tuple[_LegendEntry, int, int]]:
    """Each entry with its pixels from the left and its line; as many lines as it takes."""
    placed = []
    left, line = _MARGIN, 0
    for entry in entries:
        length = entry.indent + round(_font(entry.text).getlength(entry.text)) + 2 * _MARGIN
        if left > _MARGIN and left + length > width:
            left, line = _MARGIN, line + 1
        placed.append((entry, left, line))
        left += length
    return placed
