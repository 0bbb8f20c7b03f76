"""Groups of images."""

import json
from pathlib import Path

import pytest

from cocoseg.coco.instances import ImageRecord
from cocoseg.core.errors import UserError
from cocoseg.curation.groups import group_images, join_groups
from tests.coco_files import image, write_instances

NO_FILE = Path("missing.json")


def records(*names: str) -> list[ImageRecord]:
    return [ImageRecord(number, name, 20, 10) for number, name in enumerate(names, start=1)]


def test_images_are_grouped_by_a_field_of_their_entry(tmp_path: Path) -> None:
    entries = [image(1, video_id=7), image(2, video_id="a/b"), image(3, video_id=7), image(4)]
    path = write_instances(tmp_path / "instances.json", entries, [])
    images = records("1.jpg", "2.jpg", "3.jpg")
    assert group_images(images, "video_id", path) == {"1": "7", "2": "a/b", "3": "7"}


def test_the_error_for_a_missing_field_names_the_image_and_its_fields(tmp_path: Path) -> None:
    entries = [image(1, video_id=7), image(2, video_id=None)]
    path = write_instances(tmp_path / "instances.json", entries, [])
    with pytest.raises(UserError) as error:
        group_images(records("1.jpg", "2.jpg"), "video_id", path)
    assert str(error.value) == (
        f"split.group_by: the entry of 2.jpg in {path} has no field 'video_id'; "
        "its fields are: id, file_name, width, height"
    )


def test_nan_and_malformed_entries_are_tolerated_and_the_first_entry_of_an_id_wins(
    tmp_path: Path,
) -> None:
    entries = [17, {"id": "x"}, image(1, video_id=7, gps=float("nan")), image(1, video_id=8)]
    path = write_instances(tmp_path / "instances.json", entries, [])
    assert group_images(records("1.jpg"), "video_id", path) == {"1": "7"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": 3}', json.dumps({"images": []})])
def test_a_file_that_is_not_a_coco_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(UserError, match=str(path)):
        group_images(records("1.jpg"), "video_id", path)


def test_images_are_grouped_by_the_directory_in_their_names() -> None:
    images = records("cam1+day+1.jpg", "cam1/day/2.jpg", "cam1+3.jpg", "4.jpg", "5.jpg")
    assert group_images(images, "directory", NO_FILE) == {
        "cam1+day+1": "cam1/day",
        "cam1/day/2": "cam1/day",
        "cam1+3": "cam1",
        "4": ".",
        "5": ".",
    }


def test_images_are_grouped_by_a_regular_expression_on_their_names() -> None:
    images = records("rec07_0001.jpg", "rec07_0002.jpg", "rec08_0001.jpg")
    assert group_images(images, r"^(rec\d+)_", NO_FILE) == {
        "rec07_0001": "rec07",
        "rec07_0002": "rec07",
        "rec08_0001": "rec08",
    }


@pytest.mark.parametrize("pattern", [r"^(rec\d+)_", r"^(rec)?"])
def test_the_error_for_a_name_without_a_match_names_the_image(pattern: str) -> None:
    with pytest.raises(UserError, match=r"split\.group_by: .* matches no group in holiday\.jpg"):
        group_images(records("rec07_0001.jpg", "holiday.jpg"), pattern, NO_FILE)


def test_a_pair_joins_two_groups_under_the_smallest_key() -> None:
    groups = {"a": "video_2", "b": "video_1", "c": "video_1", "d": "video_3"}
    joined = join_groups(groups, [("a", "c")])
    assert joined == {"a": "video_1", "b": "video_1", "c": "video_1", "d": "video_3"}


def test_pairs_of_images_without_groups_chain_into_one_group() -> None:
    assert join_groups({}, [("c", "d"), ("b", "c"), ("x", "y")]) == {
        "b": "b",
        "c": "b",
        "d": "b",
        "x": "x",
        "y": "x",
    }


def test_without_pairs_groups_do_not_change() -> None:
    assert join_groups({}, []) == {}
    assert join_groups({"a": "video", "b": "b"}, []) == {"a": "video", "b": "b"}
