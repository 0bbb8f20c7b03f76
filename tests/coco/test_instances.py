"""What is read from an instances file, and which files are refused."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cocoseg.coco.instances import (
    InvalidSegmentation,
    ReadResult,
    decode_counts,
    parse_segmentation,
    read_instances,
)
from cocoseg.core.errors import UserError
from tests.coco_files import (
    CATEGORIES,
    SQUARE,
    annotation,
    image,
    write_instances,
)


def test_a_file_is_read_the_same_in_every_encoding_of_json(tmp_path: Path) -> None:
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
    b"[1, 2]": "its top level is no object",
    b"9" * 5000: "not valid JSON: Exceeds the limit",
    b'{"images": [], "categories": []}': "it has no list `annotations`",
    b'{"images": {}, "annotations": [], "categories": []}': "it has no list `images`",
    b'{"images": [], "annotations": [], "categories": [{"id": 1}]}': "categories: .*`name`",
}


@pytest.mark.parametrize("content", REFUSED, ids=[f"{c[:20]!r}" for c in REFUSED])
def test_what_is_no_instances_file_is_refused_in_one_line_that_says_where(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "instances.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=REFUSED[content]) as caught:
        read_instances(file)
    assert str(caught.value).startswith(f"{file} ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        read_instances(tmp_path / "instances.json")


# Of many longer runs pycocotools would write beyond its buffer (see MAX_IMAGE_PIXELS).
@given(
    st.lists(st.integers(0, 2**24 - 1), max_size=12) | st.lists(st.integers(0, 2**26), max_size=2)
)
@settings(max_examples=200, deadline=None)
def test_compressed_counts_are_decoded_as_pycocotools_encodes_them(counts: list[int]) -> None:
    encoded = coco_mask.frPyObjects({"size": [1, 1], "counts": counts}, 1, 1)
    assert decode_counts(encoded["counts"].decode("ascii")) == counts


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_string_of_counts_is_decoded_or_refused(text: str) -> None:
    raw = msgspec.Raw(json.dumps({"size": [10, 20], "counts": text}).encode())
    try:
        parsed = parse_segmentation(raw, 20, 10)
    except InvalidSegmentation as error:
        assert error.reason in ("rle_counts", "rle_malformed")
    else:
        assert sum(parsed.counts) == 200  # type: ignore[union-attr]


def test_reading_keeps_no_more_than_it_needs(tmp_path: Path) -> None:
    file = write_instances(tmp_path / "a.json", [image(1, extra="x")], [annotation(1, 1, area=3)])
    read: ReadResult = read_instances(file)
    assert msgspec.json.decode(msgspec.json.encode(read.instances)) == {
        "images": [image(1)],
        "annotations": [annotation(1, 1)],
        "categories": CATEGORIES,
    }
