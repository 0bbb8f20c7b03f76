"""Image files: are they whole and of the annotated size, and what are their pixels.

COCO's `width` and `height` describe the pixels as they are stored. So stored pixels of that size
are taken as they are; a photo of which only the EXIF-rotated form has that size is rotated; any
other is refused, since its annotations would lie elsewhere.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cocoseg.core.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""What is read. Pillow knows more, some of which start other programs (EPS)."""

MAX_IMAGE_PIXELS = 1 << 26
"""The largest image of a data set, 8,192 x 8,192 pixels. pycocotools can write beyond its buffer with one
pixel more: four runs of 2^24 pixels fill the six bytes reserved for each, and a NUL follows."""

_STRIP_PIXELS = 2**22

# Pillow warns about what is refused here anyway, or harmless: half a page for one odd photo.
warnings.filterwarnings("ignore", module=r"PIL\.")

_REMEDY = "; remove the file, and `dvc repro` brings it again"

_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class DamagedImage(ValueError):
    """The file is not an image, or cannot be decoded as one of the expected size."""


class WrongSize(DamagedImage):
    """The annotations are of another size."""


class UnknownOrientation(DamagedImage):
    """The size does not tell whether the annotations are of the stored or of the shown pixels."""


def check_image(path: Path, width: int, height: int) -> None:
    """Decode the whole file. Raises DamagedImage (a few words, without the path) if it is not an
    image of `width` x `height` pixels that `read_rgb` can give."""
    with _open(path) as image:
        _is_rotated(image, width, height)
        image.load()


def agreed_size(path: Path, width: int | None, height: int | None) -> tuple[int, int]:
    """Decode the whole file; return the size in pixels that its annotations are about: the given
    one, or where they give none, the file's own.

    Raises DamagedImage as `check_image` does, and where EXIF turns or mirrors the photo in a way
    that the size does not show: then it could be annotated either way.
    """
    with _open(path) as image:
        if width is None or height is None:
            size, told = image.size, False
        else:
            size, told = (width, height), width != height
            _is_rotated(image, width, height)
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation in (2, 3, 4) or (orientation in (5, 6, 7, 8) and not told):
            raise UnknownOrientation(
                f"is turned or mirrored by EXIF (orientation {orientation}), and its size does not "
                "tell whether its annotations are as well"
            )
        image.load()
    return size


def is_whole(path: Path, width: int, height: int) -> bool:
    """Whether an image that once passed `check_image` is still there, in some 50 microseconds.

    The size in the header and the end mark of the file are looked at, not the pixels. A file
    without an end mark (some cameras write none) is decoded.
    """
    try:
        with _open(path) as image:
            _is_rotated(image, width, height)
            last_bytes = _LAST_BYTES.get(image.format or "")
        if last_bytes is None or _tail(path, len(last_bytes)) != last_bytes:
            check_image(path, width, height)
    except (FileNotFoundError, IsADirectoryError, DamagedImage):
        return False
    return True


def read_rgb(
    path: Path,
    width: int | None = None,
    height: int | None = None,
    *,
    shorter_side: int | None = None,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> NDArray[np.uint8]:
    """The pixels of an image of any kind as uint8 of shape (height, width, 3).

    With `width` and `height` of the annotation the rule above holds; without, as for a user's own
    photo, it is shown as a viewer shows it (EXIF). Alpha is dropped, 16 bits are scaled to 8, of an
    animation the first frame is taken. Where a `shorter_side` of so many pixels is enough, a JPEG
    is decoded at a half, a quarter or an eighth of its size, in a fraction of the time. A file that
    claims more than `max_pixels` is refused before it is decoded. Raises UserError if the file is
    missing or damaged; of an annotated image it says how to have it brought again.
    """
    try:
        with _open(path, max_pixels) as image:
            turned = width is None or height is None or _is_rotated(image, width, height)
            if shorter_side:
                image.draft(None, (shorter_side, shorter_side))
            if turned:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except FileNotFoundError:
        raise UserError(f"{path} not found") from None
    except DamagedImage as error:
        remedy = "" if width is None else _REMEDY
        raise UserError(f"{path}: {error}{remedy}") from None


def read_thumbnail(path: Path, side: int) -> NDArray[np.uint8]:
    """A gray image of `side` x `side` pixels, whatever its shape, turned as a viewer shows it.

    Of a JPEG, only the frequencies that are needed are decoded. Raises UserError if the file is
    missing or damaged, and says how to have it brought again.
    """
    try:
        with _open(path) as image:
            image.draft("L", (2 * side, 2 * side))
            gray = Image.fromarray(to_rgb(ImageOps.exif_transpose(image))).convert("L")
            return np.asarray(gray.resize((side, side), Image.Resampling.BOX))
    except FileNotFoundError:
        raise UserError(f"{path} not found") from None
    except DamagedImage as error:
        raise UserError(f"{path}: {error}{_REMEDY}") from None


@contextmanager
def _open(path: Path, max_pixels: int = MAX_IMAGE_PIXELS) -> Iterator[Image.Image]:
    """Open an image; what decoders raise on damaged bytes, in the block too, is a DamagedImage."""
    with path.open("rb") as file, _pillow_opens(max_pixels):
        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    size = f"{image.width} x {image.height}"
                    raise DamagedImage(f"claims {size} pixels, more than this project reads")
                if image.mode == "F":
                    raise DamagedImage("has floating-point pixels, whose range is unknown")
                yield image
        except (DamagedImage, MemoryError):
            raise
        except UnidentifiedImageError:
            raise DamagedImage(f"is no {', '.join(FORMATS)} image") from None
        except Exception as error:
            # Decoders raise nearly anything on hostile bytes: struct.error, SyntaxError, EOFError,
            # DecompressionBombError… An OSError with a number is the disk's, not the file's.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DamagedImage(f"is damaged: {str(error) or type(error).__name__}") from None


@contextmanager
def _pillow_opens(pixels: int) -> Iterator[None]:
    """Pillow's own limit, which is the whole process's, is raised only while it must be."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > max(limit, MAX_IMAGE_PIXELS):
        Image.MAX_IMAGE_PIXELS = pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _is_rotated(image: Image.Image, width: int, height: int) -> bool:
    """Whether EXIF rotation is what gives the image its annotated size. Raises DamagedImage."""
    if image.size == (width, height):
        return False
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    if turned and image.size == (height, width):
        return True
    raise WrongSize(
        f"has {image.width} x {image.height} pixels, but its annotation says {width} x {height}"
    )


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an image of any mode as uint8 of shape (height, width, 3).

    Some rows at a time: of a whole image Pillow and NumPy would make a copy each on the way.
    """
    image.load()  # which may change its mode
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image if bottom - top == image.height else image.crop((0, top, image.width, bottom))
        rgb[top:bottom] = _strip_to_rgb(strip)
    return rgb


def _strip_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        # 16 bits of gray: Pillow would clip them at 255 instead of scaling.
        values: NDArray[Any] = np.asarray(image).clip(0, 65535).astype(np.uint32)
        gray = ((values + 128) // 257).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _tail(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size), os.SEEK_SET)
        return file.read()
