"""Pictures of labels: overlays on photos, and example panels with a legend."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cocoseg.labels import PALETTE, VOID

Picture = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

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


def draw_example(
    photo: Picture,
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    names: Sequence[str],
    caption: str,
    panel_height: int = 288,
) -> Image.Image:
    """Photo, truth and prediction side by side, with a legend of the labels that occur.

    `names` are the classes' names in label order, background first.
    """
    panels = [
        (f"photo {caption}", photo),
        ("truth", overlay_labels(photo, truth)),
        ("prediction", overlay_labels(photo, prediction)),
    ]
    width = round(panel_height * photo.shape[1] / photo.shape[0])
    page = Image.new(
        "RGB",
        (3 * width + 4 * _MARGIN, panel_height + 2 * _LINE + 2 * _MARGIN),
        (255, 255, 255),
    )
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(_TEXT_SIZE)
    for column, (title, picture) in enumerate(panels):
        left = _MARGIN + column * (width + _MARGIN)
        draw.text((left, _MARGIN // 2), title, (60, 60, 60), font)
        scaled = Image.fromarray(picture).resize((width, panel_height), Image.Resampling.LANCZOS)
        page.paste(scaled, (left, _LINE))
    left, top = _MARGIN, panel_height + _LINE + _MARGIN
    for label in np.union1d(truth, prediction):
        if label == 0:
            continue
        name = "void (not scored)" if label == VOID else names[label]
        colour = tuple(int(part) for part in PALETTE[label])
        draw.rectangle((left, top, left + _TEXT_SIZE, top + _TEXT_SIZE), colour)
        draw.text((left + _LINE, top - 2), name, (60, 60, 60), font)
        left += _LINE + round(font.getlength(name)) + 2 * _MARGIN
    return page
