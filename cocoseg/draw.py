"""Pictures of labels: overlays on photos, errors, and example panels with a legend."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cocoseg.labels import PALETTE, VOID

Picture = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

Colour = tuple[int, int, int]

ERRORS: dict[str, Colour] = {
    "missed": (0, 114, 178),
    "false alarm": (230, 130, 0),
    "wrong class": (200, 60, 160),
}
"""Kinds of errors: a class taken for background, background for a class, a class for another. The
colours are told apart by colour-blind people too (after Okabe and Ito, 2008)."""

_VOID_NAME = "void (not scored)"
_INK = (60, 60, 60)
_MARGIN = 8
_TEXT_SIZE = 14
_LINE = _TEXT_SIZE + _MARGIN


def overlay_labels(photo: Picture, labels: NDArray[np.uint8], opacity: float = 0.6) -> Picture:
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
    photo: Picture, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> Picture:
    """The photo (H, W, 3), pale and grey, with wrong pixels of labels (H, W) in ERRORS' colours.

    Void pixels of the truth are no errors.
    """
    grey = np.asarray(Image.fromarray(photo).convert("L"), np.float64)
    picture = np.repeat((grey * 0.5 + 127)[..., None], 3, axis=2)
    wrong = (truth != prediction) & (truth != VOID)
    kinds = (
        wrong & (prediction == 0),
        wrong & (truth == 0),
        wrong & (truth != 0) & (prediction != 0),
    )
    for pixels, colour in zip(kinds, ERRORS.values(), strict=True):
        picture[pixels] = colour
    return picture.round().astype(np.uint8)


def draw_panels(
    photo: Picture, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> dict[str, Picture]:
    """The four views of an example, by title."""
    return {
        "photo": photo,
        "truth": overlay_labels(photo, truth),
        "prediction": overlay_labels(photo, prediction),
        "errors": overlay_errors(photo, truth, prediction),
    }


def draw_example(
    photo: Picture,
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    names: Sequence[str],
    caption: str,
    panel_height: int = 288,
) -> Image.Image:
    """Photo, truth, prediction and errors side by side, a caption above and a legend below.

    `names` are the classes' names in label order, background first; the legend has those that
    occur.
    """
    panels = draw_panels(photo, truth, prediction)
    # A very long photo is shown smaller rather than beyond all screens.
    scale = min(panel_height / photo.shape[0], 2 * panel_height / photo.shape[1])
    width = max(1, round(photo.shape[1] * scale))
    height = max(1, round(photo.shape[0] * scale))
    entries: list[tuple[str, NDArray[np.uint8] | None]] = [("labels", None)]
    entries += [
        (_VOID_NAME if label == VOID else names[label], PALETTE[label])
        for label in np.union1d(truth, prediction)
        if label != 0
    ]
    entries += [("errors", None)]
    entries += [(name, np.array(colour, np.uint8)) for name, colour in ERRORS.items()]
    font = ImageFont.load_default(_TEXT_SIZE)
    page_width = max(len(panels) * (width + _MARGIN) + _MARGIN, 480)
    places = _place_legend([name for name, _ in entries], page_width, font)
    top = 2 * _LINE + _MARGIN
    bottom = top + height + _MARGIN
    page = Image.new("RGB", (page_width, bottom + _LINE * (places[-1][1] + 1)), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), caption, (0, 0, 0), font)
    for column, (title, picture) in enumerate(panels.items()):
        left = _MARGIN + column * (width + _MARGIN)
        draw.text((left, _MARGIN + _LINE), title, _INK, font)
        scaled = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        page.paste(scaled, (left, top))
    for (name, colour), (left, line) in zip(entries, places, strict=True):
        line_top = bottom + line * _LINE
        if colour is not None:
            box = (left, line_top, left + _TEXT_SIZE, line_top + _TEXT_SIZE)
            draw.rectangle(box, tuple(int(part) for part in colour))
            left += _LINE
        draw.text((left, line_top - 2), name + ":" * (colour is None), _INK, font)
    return page


def _place_legend(
    names: Sequence[str], width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[tuple[int, int]]:
    """Where each entry starts: (pixels from the left, line), in as many lines as are needed."""
    places: list[tuple[int, int]] = []
    left, line = _MARGIN, 0
    for name in names:
        taken = _LINE + round(font.getlength(name)) + 2 * _MARGIN
        if left > _MARGIN and left + taken > width:
            left, line = _MARGIN, line + 1
        places.append((left, line))
        left += taken
    return places
