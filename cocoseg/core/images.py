"""Image files: validation, size and pixels.

COCO's `width` and `height` describe the stored pixels. An image whose stored pixels have the
annotated size is therefore not rotated. An image that has that size only after its EXIF rotation is
rotated. Any other image is refused, since its annotations would be misplaced.
"""

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (  # the plugins of FORMATS register themselves
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from cocoseg.core.errors import MissingFileError, UserError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Supported formats. Pillow supports others, some of which start external programs (EPS)."""

MAX_IMAGE_PIXELS = 1 << 26
"""The largest image of a data set: 8,192 x 8,192 pixels. With one pixel more, pycocotools can write
beyond its buffer: four runs of 2^24 pixels fill the six bytes reserved for each, and a NUL follows.
"""

_MAX_SAMPLE_VALUE = 281  # a TIFF tag
_STRIP_PIXELS = 2**22

_REMEDY = "; remove the file and run `dvc repro` to fetch it again"

_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class DamagedImage(ValueError):
    """The file is not an image of the expected size that can be decoded."""


class TooLarge(DamagedImage):
    """The image has more pixels than the limit."""


class WrongSize(DamagedImage):
    """The image and its annotation differ in size."""


class UnknownOrientation(DamagedImage):
    """The annotations may be of the stored pixels or of the EXIF-rotated ones."""


def check_image(path: Path, width: int, height: int) -> None:
    """Decode the whole file to check that `read_rgb` can read it.

    Raises:
        DamagedImage: the file is not an image of `width` x `height` pixels. The message does not
            contain the path.
    """
    with _open(path) as image:
        _is_rotated(image, width, height)
        image.load()


def agreed_size(path: Path, width: int | None, height: int | None) -> tuple[int, int]:
    """Decode the whole file and find the size in pixels to which its annotations refer.

    Returns:
        The given width and height, or those of the file if the annotations do not give both.

    Raises:
        WrongSize: the file does not have the given size.
        UnknownOrientation: EXIF rotates or mirrors the image, and its size does not show whether
            its annotations refer to the stored or to the displayed pixels.
        DamagedImage: the file cannot be decoded.
    """
    with _open(path) as image:
        if width is None or height is None:
            size, shows_rotation = image.size, False
        else:
            size, shows_rotation = (width, height), width != height
            _is_rotated(image, width, height)
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation in (2, 3, 4) or (orientation in (5, 6, 7, 8) and not shows_rotation):
            raise UnknownOrientation(
                f"is rotated or mirrored by EXIF (orientation {orientation}), and its size does "
                "not show whether its annotations are as well"
            )
        image.load()
    return size


def is_whole(path: Path, width: int, height: int) -> bool:
    """Whether an image that has passed `check_image` before still exists and is complete.

    This reads the size in the header and the end marker, not the pixels, and takes about 50
    microseconds. A file without an end marker, as some cameras write it, is decoded.
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
    path: Path | BinaryIO,
    width: int | None = None,
    height: int | None = None,
    *,
    shorter_side: int | None = None,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> NDArray[np.uint8]:
    """Read an image of any supported format and mode.

    Alpha is dropped, 16 bits are scaled to 8, and the first frame of an animation is read.

    Args:
        path: the file, or an open binary file that can seek.
        width: the annotated width in pixels. With `width` and `height`, the rule at the top of
            this module decides about EXIF rotation; without them, EXIF rotation always applies,
            as in an image viewer.
        height: the annotated height in pixels.
        shorter_side: a sufficient length of the shorter side in pixels. A JPEG is then decoded at
            1/2, 1/4 or 1/8 of its size where that is large enough, which is faster.
        max_pixels: a larger image is refused before it is decoded.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is damaged, too large or not of the annotated size.
    """
    try:
        with _open(path, max_pixels) as image:
            rotated = width is None or height is None or _is_rotated(image, width, height)
            if shorter_side:
                image.draft(None, (shorter_side, shorter_side))
            if rotated:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except FileNotFoundError:
        raise MissingFileError(f"{path} not found") from None
    except DamagedImage as error:
        name = path if isinstance(path, Path) else "the image"
        remedy = "" if width is None else _REMEDY
        raise UserError(f"{name} {error}{remedy}") from None


def pixels_in_header(path: Path | BinaryIO) -> int:
    """The number of pixels that decoding a file would give; 0 if it cannot be decoded."""
    try:
        with _open(path, max_pixels=sys.maxsize) as image:
            return image.width * image.height
    except (OSError, DamagedImage):
        return 0


def read_thumbnail(path: Path, side: int) -> NDArray[np.uint8]:
    """Read an image as a square gray thumbnail, with its EXIF rotation applied.

    A JPEG is decoded at a reduced size.

    Args:
        path: the file.
        side: pixels of each side of the thumbnail; the aspect ratio is not kept.

    Returns:
        uint8 (side, side).

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is damaged.
    """
    try:
        with _open(path) as image:
            image.draft("L", (2 * side, 2 * side))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # a copy would lack the tags of a TIFF
            gray = Image.fromarray(to_rgb(image)).convert("L")
            return np.asarray(gray.resize((side, side), Image.Resampling.BOX))
    except FileNotFoundError:
        raise MissingFileError(f"{path} not found") from None
    except DamagedImage as error:
        raise UserError(f"{path} {error}{_REMEDY}") from None


@contextmanager
def _open(path: Path | BinaryIO, max_pixels: int = MAX_IMAGE_PIXELS) -> Iterator[Image.Image]:
    """Open an image; errors that decoders raise here or in the block become DamagedImage."""
    with path.open("rb") if isinstance(path, Path) else nullcontext(path) as file:
        try:
            with _open_any_size(file) as image:
                if image.width * image.height > max_pixels:
                    size = f"{image.width} x {image.height}"
                    raise TooLarge(f"has {size} pixels, more than the limit of {max_pixels:,}")
                _check_values(image)
                yield image
        except (DamagedImage, MemoryError):
            raise
        except Image.DecompressionBombError:  # WebP, and a GIF that grows
            raise TooLarge("has more pixels than Pillow's limit; save it as PNG or TIFF") from None
        except UnidentifiedImageError:
            raise DamagedImage(
                f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
            ) from None
        except Exception as error:
            # Decoders raise almost anything on hostile bytes: struct.error, SyntaxError, EOFError…
            # Only an OSError with an errno comes from the disk.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DamagedImage(f"is damaged: {str(error) or type(error).__name__}") from None


def _open_any_size(file: BinaryIO) -> ImageFile.ImageFile:
    """`Image.open` without its limit on pixels, which is a variable of the whole process."""
    file.seek(0)
    prefix = file.read(16)
    for name in FORMATS:
        open_as, accepts = Image.OPEN[name]
        if accepts is None or accepts(prefix) is True:
            file.seek(0)
            with suppress(SyntaxError, IndexError, TypeError, struct.error):
                return open_as(file, "")
    raise UnidentifiedImageError


def _check_values(image: Image.Image) -> None:
    """Raise DamagedImage if Pillow decodes the pixels wrongly or their range is unknown."""
    if image.mode == "F":
        raise DamagedImage("has floating-point pixels of unknown range")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    if 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)):
        raise DamagedImage("has signed pixels of unknown range; save it as 8 bits")
    if max(bits) > 8 and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        raise DamagedImage("has inverted gray values of more than 8 bits; save it as 8 bits")
    if len(bits) > 1 and max(bits) > 8:
        if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2:
            raise DamagedImage("has 16-bit channels in separate planes; save it as 8 bits")
        if _highest_value(image) < 65535:
            raise DamagedImage("has color channels of less than 16 bits in 16; save it as 8 bits")
    if image.mode == "I" and _MAX_SAMPLE_VALUE not in tags:
        raise DamagedImage("has 32-bit pixels of unknown range; save it as 8 or 16 bits")


def _highest_value(image: Image.Image) -> int:
    """The value of white in a gray image of more than 8 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 65535
    values = image.tag_v2.get(_MAX_SAMPLE_VALUE, 0)
    bits = max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,)))
    return int(max(values if isinstance(values, tuple) else (values,))) or (1 << bits) - 1


def _is_rotated(image: Image.Image, width: int, height: int) -> bool:
    """Whether only EXIF rotation gives the image its annotated size; WrongSize if neither does."""
    if image.size == (width, height):
        return False
    rotated = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    if rotated and image.size == (height, width):
        return True
    raise WrongSize(
        f"has {image.width} x {image.height} pixels, but its annotation says {width} x {height}"
    )


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image of any mode to uint8 (H, W, 3).

    Large images are converted in strips, to avoid two further copies of the whole image.
    """
    image.load()  # may change the mode
    highest = _highest_value(image)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image if bottom - top == image.height else image.crop((0, top, image.width, bottom))
        rgb[top:bottom] = _strip_to_rgb(strip, highest)
    return rgb


def _strip_to_rgb(image: Image.Image, highest: int) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        # Pillow clips the values at 255 instead of scaling them, and reads 32 bits as signed.
        values: NDArray[Any] = np.asarray(image)
        values = values.view(np.uint32) if values.dtype == np.int32 else values
        values = values.clip(0, highest).astype(np.uint64)
        gray = ((values * 255 + highest // 2) // highest).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _tail(path: Path, size: int) -> bytes:
    """The last `size` bytes of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size), os.SEEK_SET)
        return file.read()
