"""Image files of every kind that a COCO folder or a user may hold."""

import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cocoseg.core import images
from cocoseg.core.errors import UserError
from cocoseg.core.images import (
    DamagedImage,
    UnknownOrientation,
    WrongSize,
    agreed_size,
    check_image,
    is_whole,
    read_rgb,
    read_thumbnail,
    to_rgb,
)
from tests import ROOT

MIRROR = ROOT.parent / "shared" / "coco-mirror"
needs_mirror = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"{MIRROR} is not on this machine")

WIDTH, HEIGHT = 48, 32


def photo() -> Image.Image:
    """Something smooth, with different corners, that JPEG keeps nearly as it is."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    colors = np.stack([x * 5, y * 7, (x + y) * 3], axis=2)
    return Image.fromarray(colors.astype(np.uint8))


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).astype(np.int64)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def difference(first: NDArray[np.uint8], second: NDArray[np.int64]) -> float:
    assert first.shape == second.shape
    return float(np.abs(first.astype(np.int64) - second).mean())


@pytest.mark.parametrize(
    ("mode", "ending", "options"),
    [
        ("RGB", "jpg", {}),
        ("RGB", "jpg", {"progressive": True}),
        ("L", "jpg", {}),
        ("CMYK", "jpg", {}),
        ("RGB", "png", {}),
        ("RGBA", "png", {}),
        ("LA", "png", {}),
        ("1", "png", {}),
        ("P", "png", {}),
        ("P", "png", {"transparency": 0}),
        ("P", "png", {"transparency": bytes(range(256))}),
        ("P", "gif", {}),
        ("RGB", "webp", {"lossless": True}),
        ("RGB", "bmp", {}),
        ("RGB", "tif", {}),
    ],
)
def test_every_kind_of_image_becomes_rgb(
    tmp_path: Path,
    mode: str,
    extension: str,
    options: dict[str, Any],
    recwarn: pytest.WarningsRecorder,
) -> None:
    image = photo().convert(mode)
    path = tmp_path / f"image.{extension}"
    image.save(path, **{**({"quality": 95} if extension == "jpg" else {}), **options})
    rgb = read_rgb(path, WIDTH, HEIGHT)
    assert rgb.dtype == np.uint8
    assert rgb.flags.writeable
    assert difference(rgb, pixels(image)) < (3 if extension == "jpg" else 0.01)
    check_image(path, WIDTH, HEIGHT)
    assert is_whole(path, WIDTH, HEIGHT)
    assert not is_whole(path, WIDTH, HEIGHT + 1)
    assert not recwarn.list


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, WIDTH * HEIGHT).round().reshape(HEIGHT, WIDTH)
    for extension in ("png", "tif"):
        path = tmp_path / f"gray.{extension}"
        Image.fromarray(values.astype(np.uint16)).save(path)
        rgb = read_rgb(path, WIDTH, HEIGHT)
        assert np.array_equal(rgb, np.repeat((values / 257).round()[:, :, None], 3, axis=2))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4)
    return len(content).to_bytes(4) + kind + content + checksum


def png_bytes(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """An RGB PNG made by hand, since Pillow writes none of 16 bits or of absurd size."""
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, 2, 0, 0, 0])
    content = zlib.compress(rows)
    chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def test_sixteen_bits_of_color_are_scaled_to_eight(tmp_path: Path) -> None:
    path = tmp_path / "colour.png"
    path.write_bytes(png_bytes(5, 4, 16, 4 * (b"\0" + 5 * 3 * b"\xc8\x12")))
    assert np.array_equal(read_rgb(path, 5, 4), np.full((4, 5, 3), 0xC8))


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.new("F", (WIDTH, HEIGHT), 0.5).save(path)
    with pytest.raises(UserError, match="floating-point"):
        read_rgb(path)
    with pytest.raises(DamagedImage, match="floating-point"):
        check_image(path, WIDTH, HEIGHT)


# --- Rotation -----------------------------------------------------------------------------------


def test_stored_pixels_of_the_annotated_size_are_not_rotated(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    photo().save(path, quality=95, exif=orientation(6))
    check_image(path, WIDTH, HEIGHT)
    assert difference(read_rgb(path, WIDTH, HEIGHT), pixels(photo())) < 3


@pytest.mark.parametrize(("value", "transpose"), [(6, Image.Transpose.ROTATE_270),
                                                  (8, Image.Transpose.ROTATE_90)])  # fmt: skip
def test_a_photo_is_rotated_if_only_that_gives_the_annotated_size(
    tmp_path: Path, value: int, transpose: Image.Transpose
) -> None:
    path = tmp_path / "photo.jpg"
    photo().save(path, quality=95, exif=orientation(value))
    check_image(path, HEIGHT, WIDTH)
    assert is_whole(path, HEIGHT, WIDTH)
    assert difference(read_rgb(path, HEIGHT, WIDTH), pixels(photo().transpose(transpose))) < 3


def test_without_annotation_a_photo_looks_as_in_a_viewer(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    photo().save(path, quality=95, exif=orientation(3))
    turned = pixels(photo().transpose(Image.Transpose.ROTATE_180))
    assert difference(read_rgb(path), turned) < 3
    assert difference(read_rgb(path, WIDTH, HEIGHT), pixels(photo())) < 3


def test_swapped_sizes_without_rotation_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    photo().save(path)
    expected = "has 48 x 32 pixels, but its annotation says 32 x 48"
    with pytest.raises(DamagedImage, match=f"^{expected}"):
        check_image(path, HEIGHT, WIDTH)
    with pytest.raises(UserError, match=rf"photo\.jpg: {expected}"):
        read_rgb(path, HEIGHT, WIDTH)
    assert not is_whole(path, HEIGHT, WIDTH)


# --- Damage -------------------------------------------------------------------------------------


def jpeg_bytes(size: tuple[int, int] = (WIDTH, HEIGHT), **options: bool) -> bytes:
    buffer = io.BytesIO()
    photo().resize(size).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused(tmp_path: Path, fraction: float, progressive: bool) -> None:
    path = tmp_path / "photo.jpg"
    content = jpeg_bytes((640, 480), progressive=progressive)
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(DamagedImage):
        check_image(path, 640, 480)
    with pytest.raises(UserError) as caught:
        read_rgb(path, 640, 480)
    assert "\n" not in str(caught.value)
    assert not is_whole(path, 640, 480)


def test_a_file_whose_end_was_lost_on_disk_is_not_whole(tmp_path: Path) -> None:
    content = jpeg_bytes((640, 480))
    path = tmp_path / "photo.jpg"
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    assert not is_whole(path, 640, 480)


def test_a_kept_file_is_looked_at_without_decoding_it(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png_bytes(WIDTH, HEIGHT, 8, b"no such rows"))
    assert is_whole(path, WIDTH, HEIGHT)
    with pytest.raises(DamagedImage):
        check_image(path, WIDTH, HEIGHT)


def test_bytes_after_the_end_of_an_image_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_bytes() + b"\r\nmade by a camera that appends something")
    check_image(path, WIDTH, HEIGHT)
    assert is_whole(path, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "content", [b"", b"<!doctype html>", b"\xff\xd8\xff", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(DamagedImage, match=r"^is "):
        check_image(path, WIDTH, HEIGHT)
    with pytest.raises(UserError, match=r"photo\.jpg: is "):
        read_rgb(path)
    assert not is_whole(path, WIDTH, HEIGHT)


@pytest.mark.filterwarnings("ignore:.*decompression bomb")
@pytest.mark.parametrize("size", [(10_000, 9_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bytes(*size, 8, bytes(1000)))
    # Decoding it would find that pixels are missing.
    too_large = "more than this project reads|exceeds limit"
    with pytest.raises(UserError, match=rf"bomb\.png: .*(?:{too_large})"):
        read_rgb(path)
    with pytest.raises(DamagedImage, match=too_large):
        check_image(path, *size)


def test_pillow_does_not_chatter_about_a_damaged_image(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bytes(10_000, 9_000, 8, bytes(1000)))
    code = f"""if True:
        from pathlib import Path
        from cocoseg.core.images import is_whole
        assert not is_whole(Path({str(path)!r}), 10_000, 9_000)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stderr == ""


def test_only_an_image_that_can_be_brought_again_is_said_to_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_bytes()[:300])
    with pytest.raises(UserError, match=r"photo\.jpg: is .*; remove the file, and `dvc repro`"):
        read_rgb(path, WIDTH, HEIGHT)
    with pytest.raises(UserError) as error:
        read_rgb(path)
    assert "remove" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"photo\.jpg not found"):
        read_rgb(tmp_path / "photo.jpg")
    assert not is_whole(tmp_path / "photo.jpg", WIDTH, HEIGHT)
    assert not is_whole(tmp_path, WIDTH, HEIGHT)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*decompression bomb")
@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_mutated_bytes_give_pixels_or_one_line(tmp_path: Path, extension: str) -> None:
    buffer = io.BytesIO()
    photo().save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(extension, extension.upper()))
    random = np.random.default_rng(0)
    path = tmp_path / f"image.{extension}"
    for _ in range(150):
        content = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        places = random.integers(0, min(len(content), random.choice([64, 10_000])), size=4)
        content[places] = random.integers(0, 256, size=4)
        path.write_bytes(content.tobytes())
        is_whole(path, WIDTH, HEIGHT)
        try:
            assert read_rgb(path, WIDTH, HEIGHT).shape == (HEIGHT, WIDTH, 3)
        except UserError as error:
            assert "\n" not in str(error)


# --- Real photos --------------------------------------------------------------------------------


@needs_mirror
def test_real_photos_are_whole_and_read_as_pillow_reads_them() -> None:
    for path in sorted((MIRROR / "val2017").iterdir()):
        with Image.open(path) as image:
            assert is_whole(path, *image.size)
            assert np.array_equal(read_rgb(path, *image.size), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "png"), ("I;16", "png")],
)
def test_a_thumbnail_is_gray_and_square_whatever_the_photo(
    tmp_path: Path, mode: str, extension: str
) -> None:
    enlarged = photo().resize((10 * WIDTH, 10 * HEIGHT))
    gray = pixels(enlarged.convert("L").resize((8, 8), Image.Resampling.BOX))[:, :, 0]
    path = tmp_path / f"photo.{extension}"
    if mode == "I;16":
        Image.fromarray(np.asarray(enlarged.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        enlarged.convert(mode).save(path)
    thumbnail = read_thumbnail(path, 8)
    assert thumbnail.dtype == np.uint8
    assert difference(thumbnail, gray) < 6


def test_a_thumbnail_is_turned_as_a_viewer_shows_the_photo(tmp_path: Path) -> None:
    path, turned = tmp_path / "photo.jpg", tmp_path / "turned.jpg"
    photo().save(path)
    photo().transpose(Image.Transpose.ROTATE_90).save(turned, exif=orientation(6))
    assert difference(read_thumbnail(path, 8), read_thumbnail(turned, 8).astype(np.int64)) < 2


def test_a_thumbnail_of_a_damaged_or_missing_photo_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"photo\.jpg: is no .*`dvc repro` brings it again"):
        read_thumbnail(path, 8)
    with pytest.raises(UserError, match="not found"):
        read_thumbnail(tmp_path / "none.jpg", 8)


def test_the_size_that_annotations_are_about_is_found_or_refused(tmp_path: Path) -> None:
    wide, square = tmp_path / "wide.jpg", tmp_path / "square.jpg"
    photo().save(wide, exif=orientation(6))
    photo().resize((24, 24)).save(square, exif=orientation(6))
    assert agreed_size(wide, WIDTH, HEIGHT) == (WIDTH, HEIGHT)
    assert agreed_size(wide, HEIGHT, WIDTH) == (HEIGHT, WIDTH)
    for path, size in ((wide, (None, None)), (square, (24, 24))):
        with pytest.raises(UnknownOrientation, match=r"EXIF \(orientation 6\)"):
            agreed_size(path, *size)
    with pytest.raises(WrongSize, match="its annotation says 9 x 9"):
        agreed_size(wide, 9, 9)
    photo().save(wide, exif=orientation(1))
    assert agreed_size(wide, None, None) == (WIDTH, HEIGHT)
    photo().save(wide, exif=orientation(3))
    with pytest.raises(UnknownOrientation):
        agreed_size(wide, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("shorter_side", "height"),
    [(400, 300), (301, 300), (300, 300), (150, 150), (100, 150), (1, 38)],
)
def test_a_jpeg_is_decoded_no_larger_than_needed(
    tmp_path: Path, shorter_side: int, height: int
) -> None:
    path = tmp_path / "x.jpg"
    photo().resize((400, 300)).save(path)
    small = read_rgb(path, 400, 300, shorter_side=shorter_side)
    assert small.shape[0] == height
    whole = Image.fromarray(read_rgb(path)).resize(small.shape[1::-1], Image.Resampling.BOX)
    np.testing.assert_allclose(small, np.asarray(whole), atol=12)


def test_a_reduced_photo_is_rotated_and_other_kinds_are_read_whole(tmp_path: Path) -> None:
    photo().resize((400, 300)).save(tmp_path / "x.jpg", exif=orientation(6))
    assert read_rgb(tmp_path / "x.jpg", 300, 400, shorter_side=150).shape == (200, 150, 3)
    assert read_rgb(tmp_path / "x.jpg", 400, 300, shorter_side=150).shape == (150, 200, 3)
    photo().save(tmp_path / "x.png")
    assert read_rgb(tmp_path / "x.png", shorter_side=8).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(UserError, match="its annotation says 200 x 150"):
        read_rgb(tmp_path / "x.jpg", 200, 150, shorter_side=150)


def test_more_pixels_than_pillow_allows_are_read_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (80, 60), (1, 2, 3)).save(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="claims 80 x 60 pixels, more than this project reads"):
        read_rgb(path, max_pixels=4799)
    assert read_rgb(path, max_pixels=4800).shape == (60, 80, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_pixels_are_the_same_whatever_the_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
        image = Image.fromarray(noise).convert(mode)
        monkeypatch.setattr(images, "_STRIP_PIXELS", 2**22)
        at_once = to_rgb(image)
        monkeypatch.setattr(images, "_STRIP_PIXELS", 210)
        assert np.array_equal(to_rgb(image), at_once), mode
