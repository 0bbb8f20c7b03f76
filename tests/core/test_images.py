"""Image files of every format and in every condition that a data set or a user may have."""

import io
import struct
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
from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.images import (
    DamagedImage,
    TooLarge,
    UnknownOrientation,
    WrongSize,
    agreed_size,
    check_image,
    is_whole,
    read_rgb,
    read_thumbnail,
    to_rgb,
)
from tests.mirror import MIRROR, needs_mirror

WIDTH, HEIGHT = 48, 32


def make_image() -> Image.Image:
    """A smooth image with different corners, which JPEG hardly changes."""
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
    ("mode", "extension", "options"),
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
def test_every_format_and_mode_becomes_rgb(
    tmp_path: Path,
    mode: str,
    extension: str,
    options: dict[str, Any],
    recwarn: pytest.WarningsRecorder,
) -> None:
    image = make_image().convert(mode)
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


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
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
    """An RGB PNG with 16 bits or an absurd size, which Pillow cannot write."""
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, 2, 0, 0, 0])
    content = zlib.compress(rows)
    chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def test_16_bits_of_color_are_scaled_to_8(tmp_path: Path) -> None:
    path = tmp_path / "color.png"
    path.write_bytes(png_bytes(5, 4, 16, 4 * (b"\0" + 5 * 3 * b"\xc8\x12")))
    assert np.array_equal(read_rgb(path, 5, 4), np.full((4, 5, 3), 0xC8))


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.new("F", (WIDTH, HEIGHT), 0.5).save(path)
    with pytest.raises(UserError, match="floating-point"):
        read_rgb(path)
    with pytest.raises(DamagedImage, match="floating-point"):
        check_image(path, WIDTH, HEIGHT)


def write_tiff(
    path: Path,
    values: NDArray[Any] | bytes,
    bits: int = 16,
    channels: int = 1,
    more: dict[int, list[int]] | None = None,
) -> None:
    """Write 4 x 1 pixels as a TIFF that Pillow cannot write; `more` are tags by their number."""
    content = values if isinstance(values, bytes) else values.tobytes()
    tags = {256: [4], 257: [1], 258: [bits] * channels, 259: [1], 262: [2 if channels == 3 else 1]}
    tags |= {273: [8], 277: [channels], 278: [1], 279: [len(content)], **(more or {})}
    start = 8 + len(content)
    directory, behind = struct.pack("<H", len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(packed) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(behind)
            packed, behind = struct.pack("<I", place), behind + packed
        directory += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    head = b"II*\0" + struct.pack("<I", start)
    path.write_bytes(head + content + directory + bytes(4) + behind)


MAX_SAMPLE_VALUE, SAMPLE_FORMAT, PHOTOMETRIC, PLANAR = 281, 339, 262, 284
TWELVE_BITS = np.array([0, 1000, 2000, 4095], np.uint16)
EIGHT_BITS = [0, 62, 125, 255]


@pytest.mark.parametrize(
    ("values", "bits", "more", "expected"),
    [
        (TWELVE_BITS, 16, {MAX_SAMPLE_VALUE: [4095]}, EIGHT_BITS),
        (TWELVE_BITS, 16, {}, [0, 4, 8, 16]),
        (TWELVE_BITS, 16, {MAX_SAMPLE_VALUE: [0]}, [0, 4, 8, 16]),
        (TWELVE_BITS, 16, {MAX_SAMPLE_VALUE: [2000]}, [0, 128, 255, 255]),
        (bytes.fromhex("0003e8 7d0fff"), 12, {}, EIGHT_BITS),
        (TWELVE_BITS.astype(np.uint32), 32, {MAX_SAMPLE_VALUE: [4095]}, EIGHT_BITS),
        (
            TWELVE_BITS.astype(np.uint32) * 1_000_000,  # beyond 2^31
            32,
            {MAX_SAMPLE_VALUE: [4_095_000_000]},
            EIGHT_BITS,
        ),
    ],
)
def test_values_of_a_tiff_are_scaled_by_the_highest_that_it_states(
    tmp_path: Path,
    values: NDArray[Any] | bytes,
    bits: int,
    more: dict[int, list[int]],
    expected: list[int],
) -> None:
    path = tmp_path / "gray.tif"
    write_tiff(path, values, bits, more=more)
    check_image(path, 4, 1)
    assert read_rgb(path, 4, 1)[0].tolist() == [[value] * 3 for value in expected]
    assert read_rgb(path)[0, :, 0].tolist() == expected
    assert read_thumbnail(path, 4)[0].tolist() == expected


def test_a_stated_highest_value_is_also_read_from_files_of_pillow(tmp_path: Path) -> None:
    path = tmp_path / "gray.tif"
    Image.fromarray(TWELVE_BITS[None]).save(path, tiffinfo={MAX_SAMPLE_VALUE: 4095})
    assert read_rgb(path)[0, :, 0].tolist() == EIGHT_BITS


def test_16_bits_of_color_in_a_tiff_are_scaled_to_8(tmp_path: Path) -> None:
    path = tmp_path / "color.tif"
    write_tiff(path, np.repeat(TWELVE_BITS * 16, 3), channels=3)
    assert read_rgb(path)[0].tolist() == [[value] * 3 for value in EIGHT_BITS]


@pytest.mark.parametrize(
    ("values", "bits", "channels", "more", "problem"),
    [
        (TWELVE_BITS.astype(np.uint32), 32, 1, {}, "32-bit pixels of unknown range"),
        (TWELVE_BITS, 16, 1, {SAMPLE_FORMAT: [2]}, "signed pixels of unknown range"),
        (TWELVE_BITS, 16, 1, {PHOTOMETRIC: [0]}, "inverted gray values of more than 8 bits"),
        (np.tile(TWELVE_BITS, 3), 16, 3, {PLANAR: [2]}, "16-bit channels in separate planes"),
        (
            np.repeat(TWELVE_BITS, 3),
            16,
            3,
            {MAX_SAMPLE_VALUE: [4095] * 3},
            "color channels of less than 16 bits in 16",
        ),
    ],
)
def test_values_that_pillow_decodes_wrongly_or_of_unknown_range_are_refused(
    tmp_path: Path,
    values: NDArray[Any],
    bits: int,
    channels: int,
    more: dict[int, list[int]],
    problem: str,
) -> None:
    path = tmp_path / "image.tif"
    write_tiff(path, values, bits, channels, more)
    for read in (check_image, agreed_size):
        with pytest.raises(DamagedImage, match=f"^has {problem}.*save it as 8"):
            read(path, 4, 1)
    with pytest.raises(UserError, match=rf"image\.tif has {problem}"):
        read_rgb(path)


def test_8_bits_in_separate_planes_and_white_as_zero_are_read(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    write_tiff(
        path, bytes([10, 20, 30, 40] * 3), 8, 3, {PLANAR: [2], 273: [8, 12, 16], 279: [4] * 3}
    )
    assert read_rgb(path)[0].tolist() == [[value] * 3 for value in (10, 20, 30, 40)]
    write_tiff(path, bytes([10, 20, 30, 40]), 8, 1, {PHOTOMETRIC: [0]})
    assert read_rgb(path)[0, :, 0].tolist() == [245, 235, 225, 215]


# --- Rotation -----------------------------------------------------------------------------------


def test_stored_pixels_of_the_annotated_size_are_not_rotated(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    make_image().save(path, quality=95, exif=orientation(6))
    check_image(path, WIDTH, HEIGHT)
    assert difference(read_rgb(path, WIDTH, HEIGHT), pixels(make_image())) < 3


@pytest.mark.parametrize(
    ("value", "transpose"),
    [
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_270),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_90),
    ],
)
def test_an_image_is_rotated_if_only_that_gives_the_annotated_size(
    tmp_path: Path, value: int, transpose: Image.Transpose
) -> None:
    path = tmp_path / "image.jpg"
    make_image().save(path, quality=95, exif=orientation(value))
    check_image(path, HEIGHT, WIDTH)
    assert is_whole(path, HEIGHT, WIDTH)
    assert difference(read_rgb(path, HEIGHT, WIDTH), pixels(make_image().transpose(transpose))) < 3


def test_an_image_without_annotation_is_read_as_a_viewer_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    make_image().save(path, quality=95, exif=orientation(3))
    rotated = pixels(make_image().transpose(Image.Transpose.ROTATE_180))
    assert difference(read_rgb(path), rotated) < 3
    assert difference(read_rgb(path, WIDTH, HEIGHT), pixels(make_image())) < 3


def test_swapped_sizes_without_rotation_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    make_image().save(path)
    expected = "has 48 x 32 pixels, but its annotation says 32 x 48"
    with pytest.raises(DamagedImage, match=f"^{expected}"):
        check_image(path, HEIGHT, WIDTH)
    with pytest.raises(UserError, match=rf"image\.jpg {expected}"):
        read_rgb(path, HEIGHT, WIDTH)
    assert not is_whole(path, HEIGHT, WIDTH)


# --- Damage -------------------------------------------------------------------------------------


def jpeg_bytes(size: tuple[int, int] = (WIDTH, HEIGHT), **options: bool) -> bytes:
    buffer = io.BytesIO()
    make_image().resize(size).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused(tmp_path: Path, fraction: float, progressive: bool) -> None:
    path = tmp_path / "image.jpg"
    content = jpeg_bytes((640, 480), progressive=progressive)
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(DamagedImage):
        check_image(path, 640, 480)
    with pytest.raises(UserError) as caught:
        read_rgb(path, 640, 480)
    assert "\n" not in str(caught.value)
    assert not is_whole(path, 640, 480)


def test_a_file_that_lost_its_end_is_not_whole(tmp_path: Path) -> None:
    content = jpeg_bytes((640, 480))
    path = tmp_path / "image.jpg"
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    assert not is_whole(path, 640, 480)


def test_a_kept_file_is_checked_without_decoding_it(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png_bytes(WIDTH, HEIGHT, 8, b"no such rows"))
    assert is_whole(path, WIDTH, HEIGHT)
    with pytest.raises(DamagedImage):
        check_image(path, WIDTH, HEIGHT)


def test_bytes_after_the_end_of_an_image_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg_bytes() + b"\r\nappended by a camera")
    check_image(path, WIDTH, HEIGHT)
    assert is_whole(path, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a JPEG, PNG, WEBP, TIFF, BMP, GIF or PPM image"),
        (b"<!doctype html>", "is not a JPEG"),
        (b"\xff\xd8\xff", "is (not a JPEG|damaged)"),
        (b"GIF89a", "is (not a JPEG|damaged)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n%%EndComments\n", "is not a JPEG"),
    ],
)
def test_a_file_without_an_image_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(DamagedImage, match=f"^{problem}"):
        check_image(path, WIDTH, HEIGHT)
    with pytest.raises(UserError, match=rf"image\.jpg {problem}"):
        read_rgb(path)
    assert not is_whole(path, WIDTH, HEIGHT)


@pytest.mark.filterwarnings("ignore:.*decompression bomb")
@pytest.mark.parametrize("size", [(10_000, 9_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bytes(*size, 8, bytes(1000)))
    # The file has too few bytes, so decoding it would give another message.
    too_large = "has .*more .*than the limit of 67,108,864"
    with pytest.raises(UserError, match=rf"bomb\.png {too_large}$"):
        read_rgb(path)
    with pytest.raises(TooLarge, match=too_large):
        check_image(path, *size)


def test_a_stage_shows_no_warning_of_pillow_about_a_damaged_image(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bytes(10_000, 9_000, 8, bytes(1000)))
    code = f"""if True:
        from pathlib import Path
        from cocoseg.core.images import is_whole
        from cocoseg.core.stage import run_stage
        run_stage(lambda: print(is_whole(Path({str(path)!r}), 10_000, 9_000)), None)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")


def test_only_an_image_of_the_data_set_can_be_fetched_again(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg_bytes()[:300])
    with pytest.raises(UserError, match=r"image\.jpg is .*; remove the file and run `dvc repro`"):
        read_rgb(path, WIDTH, HEIGHT)
    with pytest.raises(UserError) as error:
        read_rgb(path)
    assert "remove" not in str(error.value)


def test_a_missing_file_is_an_error_for_the_user_and_for_python(tmp_path: Path) -> None:
    for read in (read_rgb, lambda path: read_thumbnail(path, 8)):
        with pytest.raises(MissingFileError, match=r"image\.jpg not found$") as error:
            read(tmp_path / "image.jpg")
        assert isinstance(error.value, FileNotFoundError)
    assert not is_whole(tmp_path / "image.jpg", WIDTH, HEIGHT)
    assert not is_whole(tmp_path, WIDTH, HEIGHT)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*decompression bomb")
@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_mutated_bytes_give_pixels_or_an_error_for_the_user(tmp_path: Path, extension: str) -> None:
    buffer = io.BytesIO()
    make_image().save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(extension, extension.upper()))
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


# --- Reading ------------------------------------------------------------------------------------


@needs_mirror
def test_images_of_coco_are_whole_and_read_as_pillow_reads_them() -> None:
    for path in sorted((MIRROR / "val2017").iterdir()):
        with Image.open(path) as image:
            assert is_whole(path, *image.size)
            assert np.array_equal(read_rgb(path, *image.size), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("mode", "extension"),
    [("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "png"), ("I;16", "png")],
)
def test_a_thumbnail_is_gray_and_square(tmp_path: Path, mode: str, extension: str) -> None:
    large = make_image().resize((10 * WIDTH, 10 * HEIGHT))
    gray = pixels(large.convert("L").resize((8, 8), Image.Resampling.BOX))[:, :, 0]
    path = tmp_path / f"image.{extension}"
    if mode == "I;16":
        Image.fromarray(np.asarray(large.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        large.convert(mode).save(path)
    thumbnail = read_thumbnail(path, 8)
    assert thumbnail.dtype == np.uint8
    assert difference(thumbnail, gray) < 6


def test_a_thumbnail_is_rotated_as_in_a_viewer(tmp_path: Path) -> None:
    path, rotated = tmp_path / "image.jpg", tmp_path / "rotated.jpg"
    make_image().save(path)
    make_image().transpose(Image.Transpose.ROTATE_90).save(rotated, exif=orientation(6))
    assert difference(read_thumbnail(path, 8), read_thumbnail(rotated, 8).astype(np.int64)) < 2


def test_a_thumbnail_of_a_damaged_image_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(b"text")
    with pytest.raises(UserError, match=r"image\.jpg is not a .* run `dvc repro` to fetch it"):
        read_thumbnail(path, 8)


@pytest.mark.parametrize("value", range(1, 9))
def test_the_annotated_size_is_found_unless_exif_makes_it_ambiguous(
    tmp_path: Path, value: int
) -> None:
    wide, square = tmp_path / "wide.jpg", tmp_path / "square.jpg"
    make_image().save(wide, exif=orientation(value))
    make_image().resize((24, 24)).save(square, exif=orientation(value))
    swaps = value >= 5
    accepted = {
        (wide, WIDTH, HEIGHT): value == 1 or swaps,
        (wide, None, None): value == 1,
        (square, 24, 24): value == 1,
    }
    for (path, width, height), clear in accepted.items():
        if clear:
            assert agreed_size(path, width, height) == (width or WIDTH, height or HEIGHT)
        else:
            with pytest.raises(UnknownOrientation, match=rf"EXIF \(orientation {value}\)"):
                agreed_size(path, width, height)
    if swaps:
        assert agreed_size(wide, HEIGHT, WIDTH) == (HEIGHT, WIDTH)
    else:
        with pytest.raises(WrongSize, match=f"its annotation says {HEIGHT} x {WIDTH}"):
            agreed_size(wide, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("shorter_side", "height"),
    [(400, 300), (301, 300), (300, 300), (150, 150), (100, 150), (1, 38)],
)
def test_a_jpeg_is_decoded_no_larger_than_needed(
    tmp_path: Path, shorter_side: int, height: int
) -> None:
    path = tmp_path / "x.jpg"
    make_image().resize((400, 300)).save(path)
    small = read_rgb(path, 400, 300, shorter_side=shorter_side)
    assert small.shape[0] == height
    whole = Image.fromarray(read_rgb(path)).resize(small.shape[1::-1], Image.Resampling.BOX)
    np.testing.assert_allclose(small, np.asarray(whole), atol=12)


def test_a_reduced_jpeg_is_rotated_and_other_formats_keep_their_size(tmp_path: Path) -> None:
    make_image().resize((400, 300)).save(tmp_path / "x.jpg", exif=orientation(6))
    assert read_rgb(tmp_path / "x.jpg", 300, 400, shorter_side=150).shape == (200, 150, 3)
    assert read_rgb(tmp_path / "x.jpg", 400, 300, shorter_side=150).shape == (150, 200, 3)
    make_image().save(tmp_path / "x.png")
    assert read_rgb(tmp_path / "x.png", shorter_side=8).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(UserError, match="its annotation says 200 x 150"):
        read_rgb(tmp_path / "x.jpg", 200, 150, shorter_side=150)


@pytest.mark.filterwarnings("ignore:.*decompression bomb")
def test_more_pixels_than_pillow_allows_are_read_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (80, 60), (1, 2, 3)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="has 80 x 60 pixels, more than the limit of 4,799"):
        read_rgb(path, max_pixels=4799)
    seen = []

    class Spy(io.BytesIO):
        def read(self, *size: int) -> bytes:  # type: ignore[override]
            seen.append(Image.MAX_IMAGE_PIXELS)
            return super().read(*size)

    pixels = read_rgb(Spy(path.read_bytes()), max_pixels=4800)
    assert np.array_equal(pixels, np.full((60, 80, 3), (1, 2, 3)))
    assert set(seen) == {1000}  # also for other threads of the process, while the file is read


def test_open_files_are_read_like_paths(tmp_path: Path) -> None:
    for name in ("x.jpg", "x.png", "x.webp", "x.tif", "x.bmp", "x.gif", "x.ppm"):
        make_image().save(tmp_path / name)
        file = io.BytesIO((tmp_path / name).read_bytes())
        file.seek(5)
        assert np.array_equal(read_rgb(file), read_rgb(tmp_path / name)), name
    with pytest.raises(UserError, match=r"^the image is not a JPEG"):
        read_rgb(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0"))
    with pytest.raises(UserError, match=r"^the image is damaged"):
        read_rgb(io.BytesIO((tmp_path / "x.jpg").read_bytes()[:300]))


def test_pixels_do_not_depend_on_the_height_of_the_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (49, 70, 3)).astype(np.uint8)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
        image = Image.fromarray(noise).convert(mode)
        monkeypatch.setattr(images, "_STRIP_PIXELS", 2**22)
        at_once = to_rgb(image)
        monkeypatch.setattr(images, "_STRIP_PIXELS", 210)  # 3 rows, and 1 at the end
        assert np.array_equal(to_rgb(image), at_once), mode
