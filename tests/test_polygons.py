"""What the compiled check calls surely valid, the Python code accepts."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoseg.annotations import MAX_OUTLINE, InvalidSegmentation, parse_segmentation
from tests.coco_files import SQUARE
from tests.mirror import MIRROR_SPLITS, mirror_document, needs_mirror

surely_valid = pytest.importorskip("cocoseg._polygons", reason="not compiled").surely_valid

WIDTH, HEIGHT = 20, 10


def is_surely_valid(text: str) -> bool:
    return surely_valid(msgspec.Raw(text.encode()), WIDTH, HEIGHT, MAX_OUTLINE)


def is_valid(text: str) -> bool:
    try:
        parse_segmentation(msgspec.Raw(text.encode()), WIDTH, HEIGHT)
    except InvalidSegmentation:
        return False
    return True


# The far corner of the image, integers and fractions, with and without spaces.
TEXT = "[[0, 0.25, 20, 0, 20.00, 10], [1,2.5,3,10.0,5,6,7,8]]"

PLAIN = ["0", "0.5", "9.99999999999999999999", "10", "10.00", "10.01", "11", "20", "20.000"]
OTHER = ["20.0000000001", "21", "00", "01", "1.", ".5", "1.5.2", "-0", "-1", "+1", "1e0", "20.0e0"]
OTHER += ["", "1_0", "0x1", "18446744073709551617", "9" * 40, "NaN", "Infinity", "null", "true"]
OTHER += ['"1"', "[]", "[1]", "{}", "\u0661"]


def test_one_number_away_from_valid_polygons() -> None:
    accepted = set()
    for found in re.finditer(r"[\d.]+", TEXT):
        for number in PLAIN + OTHER:
            text = TEXT[: found.start()] + number + TEXT[found.end() :]
            if is_surely_valid(text):
                assert is_valid(text), text
                accepted.add(number)
    assert accepted == set(PLAIN)


def test_one_character_away_from_valid_polygons() -> None:
    for place in range(len(TEXT) + 1):
        for character in ["", *'019.,-+e[] \n\0"{']:
            for end in (place, place + 1):
                text = TEXT[:place] + character + TEXT[end:]
                assert is_valid(text) or not is_surely_valid(text), text


hundredths = st.integers(0, 1000).map(lambda number: number / 100)


@given(st.lists(st.lists(st.integers(0, 10) | hundredths, max_size=9), max_size=3))
@settings(max_examples=500, deadline=None)
def test_of_polygons_within_the_image_exactly_the_valid_ones_are_surely_valid(
    polygons: list[list[float]],
) -> None:
    text = json.dumps(polygons)
    assert is_surely_valid(text) == is_valid(text)


def test_nothing_beyond_the_end_of_the_text_is_read() -> None:
    whole = TEXT.encode()
    assert surely_valid(whole, WIDTH, HEIGHT, MAX_OUTLINE)
    for length in range(len(whole)):
        assert not surely_valid(memoryview(whole)[:length], WIDTH, HEIGHT, MAX_OUTLINE)


def test_an_outline_that_could_be_too_long_is_left_to_a_closer_look() -> None:
    for points, expected in ((50, True), (51, False)):
        text = json.dumps([[1] * 2 * points]).encode()
        assert surely_valid(text, WIDTH, HEIGHT, 50 * WIDTH) is expected


@pytest.mark.parametrize("size", [(0, 0), (0, 10), (20, 0), (-1, -1), (2**62, 10)])
def test_no_size_is_too_strange(size: tuple[int, int]) -> None:
    assert not surely_valid(json.dumps(SQUARE).encode(), *size, MAX_OUTLINE)


@pytest.mark.parametrize("arguments", [(), (None, 1, 1, 1), ("[[]]", 1, 1, 1), (b"", 1, 1, 2**64)])
def test_wrong_arguments_raise(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, OverflowError)):
        surely_valid(*arguments)


@needs_mirror
@pytest.mark.parametrize("split", MIRROR_SPLITS)
def test_every_polygon_of_coco_is_surely_valid(split: str) -> None:
    document = mirror_document(split)
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    polygons = [a for a in document["annotations"] if isinstance(a["segmentation"], list)]
    assert len(polygons) > 100
    for entry in polygons:
        text = json.dumps(entry["segmentation"]).encode()
        assert surely_valid(text, *sizes[entry["image_id"]], MAX_OUTLINE), entry["id"]
