"""Reading of instances files and checks of segmentations."""

import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cocoseg.coco.instances import (
    MAX_OUTLINE,
    InvalidSegmentation,
    RunLengths,
    decode_counts,
    parse_segmentation,
    read_instances,
)
from cocoseg.coco.rejections import Reason
from cocoseg.core.errors import MissingFileError, UserError
from tests.coco_files import (
    CATEGORIES,
    SQUARE,
    annotation,
    image,
    write_instances,
)


def test_files_in_other_unicode_encodings_are_read_like_utf_8(tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1)])
    expected = read_instances(file).instances
    text = file.read_text()
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32"):
        file.write_bytes(text.encode(encoding))
        found = read_instances(file)
        assert found.rejections == []
        assert found.instances.images == expected.images
        segmentation = found.instances.annotations[0].segmentation
        assert json.loads(bytes(segmentation)) == SQUARE


REFUSED = {
    b"": "not valid JSON: Expecting value at line 1, column 1",
    b"<html><body>404</body></html>": "not valid JSON: Expecting value at line 1, column 1",
    b'{"images": [\n{"id": 1,': "not valid JSON: .* at line 2, column",
    b'{"images": "\xff"}': "not valid JSON: byte 12 is not utf-8",
    b"[" * 100_000 + b"]" * 100_000: "nested too deeply",
    b"[1, 2]": "the top level is not an object",
    b"9" * 5000: "not valid JSON: Exceeds the limit",
    b'{"images": [], "categories": []}': "it has no list `annotations`",
    b'{"images": {}, "annotations": [], "categories": []}': "it has no list `images`",
    b'{"images": [], "annotations": [], "categories": [{"id": 1}]}': "categories: .*`name`",
}


@pytest.mark.parametrize("content", REFUSED, ids=[f"{c[:20]!r}" for c in REFUSED])
def test_other_files_are_refused_with_one_line_that_names_the_defect(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "instances.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=REFUSED[content]) as caught:
        read_instances(file)
    assert str(caught.value).startswith(f"{file} ")
    assert len(str(caught.value).splitlines()) == 1


def test_the_error_for_a_missing_file_names_the_command_that_creates_it(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"instances\.json not found: run `dvc repro`"):
        read_instances(tmp_path / "instances.json")


# pycocotools writes beyond its buffer if many runs are longer than MAX_IMAGE_PIXELS.
@given(
    st.lists(st.integers(0, 2**24 - 1), max_size=12) | st.lists(st.integers(0, 2**26), max_size=2)
)
@settings(max_examples=200, deadline=None)
def test_compressed_counts_of_pycocotools_are_decoded(counts: list[int]) -> None:
    encoded = coco_mask.frPyObjects({"size": [1, 1], "counts": counts}, 1, 1)
    assert decode_counts(encoded["counts"].decode("ascii")) == counts


def raw(segmentation: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(segmentation).encode())


def test_a_compressed_count_has_at_most_seven_characters() -> None:
    assert decode_counts("PPPPPP0") == [0]
    with pytest.raises(InvalidSegmentation, match="rle_counts: undecodable string"):
        decode_counts("PPPPPPP0")


def test_a_string_of_counts_that_fills_the_image_is_decoded() -> None:
    parsed = parse_segmentation(raw({"size": [10, 20], "counts": "X6"}), 20, 10)
    assert parsed == RunLengths((10, 20), [200])


@given(st.text(max_size=30))
@example("X6")
@settings(max_examples=200, deadline=None)
def test_any_string_of_counts_fills_the_image_or_is_refused(text: str) -> None:
    try:
        parsed = parse_segmentation(raw({"size": [10, 20], "counts": text}), 20, 10)
    except InvalidSegmentation as error:
        assert error.reason == Reason.RLE_COUNTS
    else:
        assert isinstance(parsed, RunLengths)
        assert sum(parsed.counts) == 200


@pytest.mark.parametrize("polygons", [1, 2])
@pytest.mark.parametrize("is_tall", [False, True])
def test_outlines_of_few_points_are_limited_in_panoramas(polygons: int, is_tall: bool) -> None:
    def parse(side: int) -> Any:
        there_and_back = [0, side, 0, 0] * 2 if is_tall else [side, 0, 0, 0] * 2
        size = (1, side) if is_tall else (side, 1)
        return parse_segmentation(raw([there_and_back] * polygons), *size)

    longest = MAX_OUTLINE // 4 // polygons
    assert len(parse(longest)) == polygons
    with pytest.raises(InvalidSegmentation, match="outline_too_long: more than 1048576 pixels"):
        parse(longest + 1)


def test_the_error_for_a_segmentation_survives_pickling_by_a_worker() -> None:
    for detail, message in {"x 9 > width 8": "x 9 > width 8", "": "The size of "}.items():
        error = InvalidSegmentation(Reason.RLE_SIZE, detail)
        again = pickle.loads(pickle.dumps(error))
        assert (again.reason, again.detail) == (Reason.RLE_SIZE, detail)
        assert str(again) == str(error)
        assert str(error).startswith(f"rle_size: {message}")


def test_fields_that_are_not_used_are_not_kept(tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1, extra="x")], [annotation(1, 1, area=3)])
    read = read_instances(file)
    assert msgspec.json.decode(msgspec.json.encode(read.instances)) == {
        "images": [image(1)],
        "annotations": [{**annotation(1, 1), "bbox": None}],
        "categories": CATEGORIES,
    }
