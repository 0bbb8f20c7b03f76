"""Your own files: locations, names and ids, copied images, files at URLs."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cocoseg.coco.instances import ImageRecord, Instances, read_instances
from cocoseg.core.errors import UserError
from cocoseg.curation.selection import select
from cocoseg.params.download import FilesExport, FilesParams
from cocoseg.sources.local_files import FilesSource
from cocoseg.sources.matching import ImageDirectory, NoMatch
from cocoseg.sources.retry import RetryPolicy
from cocoseg.sources.source import ImagesReport, update_images
from tests.exports import LEFT, RIGHT, Box, draw, polygon, write
from tests.misbehaving_server import MisbehavingServer

QUICK = RetryPolicy(attempts=2, attempts_damaged=2, backoff=0.002, max_wait=0.05, timeout=0.3)


def document(*names: str, **size: int) -> dict[str, Any]:
    """An export with one cat in each image."""
    return {
        "images": [{"id": id, "file_name": name, **size} for id, name in enumerate(names)],
        "annotations": [
            {"id": id, "image_id": id, "category_id": 3, "segmentation": polygon(LEFT)}
            for id in range(len(names))
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }


def source_of(
    directory: Path, *pairs: tuple[str, str], downloads: Path | None = None
) -> FilesSource:
    params = FilesParams(
        directory=str(directory), pairs=[FilesExport(annotations=a, images=i) for a, i in pairs]
    )
    return FilesSource(params, 2, 0, downloads or directory / "downloads", QUICK)


def written(source: FilesSource, directory: Path) -> Instances:
    source.write_annotations(directory / "instances.json")
    return read_instances(directory / "instances.json").instances


def names_and_reasons(instances: Instances) -> dict[str, str | None]:
    return {i.file_name: i.rejected[0] if i.rejected else None for i in instances.images}


# --- Locations --------------------------------------------------------------------------------


def test_a_location_is_a_relative_absolute_or_home_path_or_a_file_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    draw(tmp_path / "own/a b/1.png", {LEFT: "cat"})
    write(tmp_path / "own/a b/x.json", document("1.png"))
    absolute = tmp_path / "own/a b"
    for base in ("a b", str(absolute), "~/own/a b", absolute.as_uri()):
        source = source_of(tmp_path / "own", (f"{base}/x.json", base))
        instances = written(source, tmp_path)
        assert names_and_reasons(instances) == {"1.png": None}
        images = tmp_path / "images"
        update_images(source, instances.images, images)
        assert (images / "1.png").read_bytes() == (absolute / "1.png").read_bytes()
        (images / "1.png").unlink()


@pytest.mark.parametrize(
    ("annotations", "images", "message"),
    [
        ("none.json", "images", r"none.json is not a file; check .* \(found .*/x\.json\)"),
        ("images", "images", r"images is not a file; check download\.files"),
        ("x.json", "none", r"none is not a directory; check download\.files"),
    ],
)
def test_a_missing_file_or_directory_is_named(
    tmp_path: Path, annotations: str, images: str, message: str
) -> None:
    draw(tmp_path / "images/1.png", {})
    write(tmp_path / "x.json", document("1.png"))
    with pytest.raises(UserError, match=message):
        written(source_of(tmp_path, (annotations, images)), tmp_path)


# --- Names and ids ----------------------------------------------------------------------------


def test_file_names_are_unique_without_case_and_extension_and_the_first_image_keeps_its_name(
    tmp_path: Path,
) -> None:
    names = ["a/b.png", "a+b.png", "A/B.png", "c.png", "c.bmp", "c-2.png", ".x.png"]
    for name in names:
        draw(tmp_path / name, {})
    draw(tmp_path / "other/a/b.png", {})
    write(tmp_path / "x.json", document(*names))
    write(tmp_path / "y.json", document("a/b.png"))
    pairs = ("x.json", str(tmp_path)), ("y.json", "other")
    images = written(source_of(tmp_path, *pairs), tmp_path).images
    assert [(i.file_name, i.source.removeprefix(f"{tmp_path}/")) for i in images] == [
        ("a+b.png", "a/b.png"),
        ("a%2Bb.png", "a+b.png"),
        ("A+B-2.png", "A/B.png"),
        ("c.png", "c.png"),
        ("c-2.bmp", "c.bmp"),
        ("c-2-2.png", "c-2.png"),
        ("%2Ex.png", ".x.png"),
        ("a+b-3.png", "other/a/b.png"),
    ]
    assert [image.id for image in images] == list(range(1, 9))


def test_unique_ids_are_kept_and_categories_of_the_same_name_merged(tmp_path: Path) -> None:
    draw(tmp_path / "1.png", {})
    draw(tmp_path / "2.png", {})
    first, second = document("1.png"), document("2.png")
    second["images"][0]["id"] = second["annotations"][0]["image_id"] = "70"
    second["annotations"][0] |= {"id": 9, "category_id": 0}
    second["categories"] = [{"id": 0, "name": " cat"}, {"id": 3, "name": "dog"}]
    write(tmp_path / "x.json", first)
    write(tmp_path / "y.json", second)
    instances = written(source_of(tmp_path, ("x.json", "."), ("y.json", ".")), tmp_path)
    assert [image.id for image in instances.images] == [0, 70]
    assert [(a.id, a.image_id, a.category_id) for a in instances.annotations] == [
        (0, 0, 3),
        (9, 70, 3),
    ]
    assert [(c.id, c.name) for c in instances.categories] == [(3, "cat"), (4, "dog")]


@pytest.mark.parametrize(
    ("ids", "merged"),
    [
        ((7, 9), [7, 9]),
        (("7", 9.0), [7, 9]),
        ((7, 7), [1, 2]),
        ((7, "7"), [1, 2]),
        ((7, "007"), [1, 2]),
        ((True, 9), [1, 2]),
        ((None, 9), [1, 2]),
        ((1 << 62, 9), [1, 2]),
    ],
)
def test_ids_are_renumbered_unless_all_are_unique_integers(
    tmp_path: Path, ids: tuple[Any, Any], merged: list[int]
) -> None:
    content = document("1.png", "2.png", width=60, height=40)
    for id, image in zip(ids, content["images"], strict=True):
        image["id"] = id
    write(tmp_path / "x.json", content)
    instances = written(source_of(tmp_path, ("x.json", "http://localhost")), tmp_path)
    assert [image.id for image in instances.images] == merged


def test_two_categories_with_the_same_id_are_refused(tmp_path: Path) -> None:
    content = document("1.png")
    content["categories"].append({"id": "3", "name": "dog"})
    write(tmp_path / "x.json", content)
    with pytest.raises(
        UserError, match=r"file 1 has two categories with the id 3 \(the second is 'dog'\)"
    ):
        written(source_of(tmp_path, ("x.json", ".")), tmp_path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"segmentation": [], "bbox": [1, 2, 3, 4]}, "bbox_only"),
        ({"segmentation": [[]], "bbox": [1, 2, 3, 4]}, "bbox_only"),
        ({"segmentation": [[], []], "bbox": [1, 2, 3, 4]}, "bbox_only"),
        ({"segmentation": None, "bbox": [1, 2, 3, 4]}, "bbox_only"),
        ({"segmentation": []}, None),
        ({"segmentation": polygon(LEFT), "bbox": [1, 2, 3, 4]}, None),
    ],
)
def test_an_annotation_with_a_box_and_no_outline_is_rejected(
    tmp_path: Path, fields: dict[str, Any], reason: str | None
) -> None:
    draw(tmp_path / "1.png", {})
    content = document("1.png")
    content["annotations"][0] |= fields
    for indent in (None, 4):
        (tmp_path / "x.json").write_text(json.dumps(content, indent=indent), encoding="utf-8")
        written(source_of(tmp_path, ("x.json", ".")), tmp_path)
        [annotation] = json.loads((tmp_path / "instances.json").read_bytes())["annotations"]
        assert annotation.get("rejected", [None])[0] == reason


@pytest.mark.parametrize("size", [{}, {"width": "60", "height": 40.0}])
def test_entries_of_the_same_image_are_joined(tmp_path: Path, size: dict[str, Any]) -> None:
    draw(tmp_path / "1.png", {})
    draw(tmp_path / "2.png", {})
    content = document("1.png", "2.png", "./1.png", width=60, height=40)
    content["images"][2] = {"id": 2, "file_name": "./1.png", **size}
    write(tmp_path / "x.json", content)
    instances = written(source_of(tmp_path, ("x.json", ".")), tmp_path)
    assert names_and_reasons(instances) == {"1.png": None, "2.png": None}
    assert [image.id for image in instances.images] == [0, 1]
    assert [(a.id, a.image_id) for a in instances.annotations] == [(0, 0), (1, 1), (2, 0)]


def test_an_entry_that_is_repeated_with_its_id_is_one_image(tmp_path: Path) -> None:
    draw(tmp_path / "1.png", {})
    content = document("1.png", width=60, height=40)
    content["images"] *= 2
    write(tmp_path / "x.json", content)
    instances = written(source_of(tmp_path, ("x.json", ".")), tmp_path)
    assert names_and_reasons(instances) == {"1.png": None}
    assert [a.image_id for a in instances.annotations] == [instances.images[0].id]


def test_entries_of_the_same_image_in_two_exports_are_joined(tmp_path: Path) -> None:
    draw(tmp_path / "1.png", {})
    draw(tmp_path / "2.png", {})
    write(tmp_path / "x.json", document("1.png"))
    write(tmp_path / "y.json", document("2.png", "1.png"))
    instances = written(source_of(tmp_path, ("x.json", "."), ("y.json", ".")), tmp_path)
    assert [(i.id, i.file_name, i.annotation_file, i.source_id) for i in instances.images] == [
        (1, "1.png", "x.json", 0),
        (2, "2.png", "y.json", 0),
    ]
    assert [(a.id, a.image_id, a.source_id) for a in instances.annotations] == [
        (1, 1, 0),
        (2, 2, 0),
        (3, 1, 1),
    ]


@pytest.mark.parametrize(
    ("second", "reasons"),
    [
        ({"width": 60, "height": 40}, ["image_ambiguous"] * 2),
        ({"width": 40, "height": 60}, [None, "image_size"]),
    ],
)
def test_an_image_in_two_splits_is_ambiguous_unless_one_entry_is_unusable(
    tmp_path: Path, second: dict[str, int], reasons: list[str | None]
) -> None:
    draw(tmp_path / "1.png", {})
    write(tmp_path / "x.json", document("1.png", width=60, height=40))
    write(tmp_path / "y.json", document("1.png", **second))
    pairs = [
        FilesExport(annotations=f"{name}.json", images=".", split=split)
        for name, split in (("x", "train"), ("y", "val"))
    ]
    params = FilesParams(directory=str(tmp_path), pairs=pairs)
    instances = written(FilesSource(params, 2, 0, tmp_path / "downloads", QUICK), tmp_path)
    assert [image.rejected and image.rejected.reason for image in instances.images] == reasons


def test_an_image_of_two_sizes_is_ambiguous(tmp_path: Path) -> None:
    """An image that EXIF rotates may be annotated as stored and as shown."""
    draw(tmp_path / "1.jpg", {}, turn=6)
    content = document("1.jpg", "1.jpg")
    content["images"][0] |= {"width": 60, "height": 40}
    content["images"][1] |= {"width": 40, "height": 60}
    write(tmp_path / "x.json", content)
    images = written(source_of(tmp_path, ("x.json", ".")), tmp_path).images
    assert [image.rejected and image.rejected.reason for image in images] == ["image_ambiguous"] * 2


def test_other_ids_and_the_annotation_file_are_kept_for_reports(tmp_path: Path) -> None:
    content = document("1.png", "2.png", "3.png", width=60, height=40)
    for entry, id in zip(content["images"], ("7", "a", 7), strict=True):
        entry["id"] = id
    for entry, id in zip(content["annotations"], ("x y", None, 3), strict=True):
        entry |= {"id": id, "image_id": "a"}
    write(tmp_path / "sub/x.json", content)
    instances = written(source_of(tmp_path, ("sub/x.json", "http://localhost")), tmp_path)
    assert {image.annotation_file for image in instances.images} == {"sub/x.json"}
    assert [(image.id, image.source_id) for image in instances.images] == [(1, 7), (2, "a"), (3, 7)]
    found = [(a.id, a.image_id, a.source_id) for a in instances.annotations]
    assert found == [(1, 2, "x y"), (2, 2, msgspec.UNSET), (3, 2, msgspec.UNSET)]


@pytest.mark.parametrize("category", [4, "3 ", None, [3], 3.5])
def test_an_annotation_of_an_unknown_category_gets_an_id_that_no_category_has(
    tmp_path: Path, category: Any
) -> None:
    content = document("1.png", width=60, height=40)
    content["categories"][0]["id"] = 0
    content["annotations"][0]["category_id"] = category
    write(tmp_path / "x.json", content)
    instances = written(source_of(tmp_path, ("x.json", "http://localhost")), tmp_path)
    assert [c.id for c in instances.categories] == [0]
    assert [a.category_id for a in instances.annotations] == [-1]
    with pytest.raises(UserError, match="1 unknown_category"):
        select_all(tmp_path)


def select_all(directory: Path) -> None:
    select(
        read_instances(directory / "instances.json"),
        "all",
        max_instances=10,
        max_images=10,
        prefer="first",
        seed=0,
    )


def test_the_first_supercategory_that_an_export_names_is_kept(tmp_path: Path) -> None:
    for name, supercategory in (("x", ""), ("y", "animal"), ("z", "pet")):
        content = document("1.png", width=60, height=40)
        content["categories"][0]["supercategory"] = supercategory
        write(tmp_path / f"{name}.json", content)
    pairs = [(f"{name}.json", "http://localhost") for name in "xyz"]
    [category] = written(source_of(tmp_path, *pairs), tmp_path).categories
    assert (category.id, category.name, category.supercategory) == (3, "cat", "animal")


# --- Forms of entries -------------------------------------------------------------------------

FLAT = [4.0, 6, 24, 6, 24, 30]
LENGTHS = {"size": [40, 60], "counts": [10, 5, 2385]}


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        (FLAT, [FLAT]),
        ([-0.5, *FLAT[1:]], [[-0.5, *FLAT[1:]]]),
        ([FLAT], [FLAT]),
        ([LENGTHS], LENGTHS),
        ([LENGTHS, LENGTHS], [LENGTHS, LENGTHS]),
        ([LENGTHS, 5], [LENGTHS, 5]),
        (LENGTHS, LENGTHS),
        (["4", "6"], ["4", "6"]),
        ([], []),
        ("text", "text"),
    ],
)
def test_segmentations_are_written_as_coco_writes_them(
    tmp_path: Path, segmentation: Any, expected: Any, indent: int | None
) -> None:
    content = document("1.png", width=60, height=40)
    content["annotations"][0] |= {"id": "an id", "segmentation": segmentation}
    (tmp_path / "x.json").write_text(json.dumps(content, indent=indent), encoding="utf-8")
    written(source_of(tmp_path, ("x.json", "http://localhost")), tmp_path)
    [annotation] = json.loads((tmp_path / "instances.json").read_bytes())["annotations"]
    assert annotation["segmentation"] == expected


def test_several_run_length_encodings_in_a_list_are_malformed(tmp_path: Path) -> None:
    content = document("1.png", width=60, height=40)
    content["annotations"][0]["segmentation"] = [LENGTHS, LENGTHS]
    write(tmp_path / "x.json", content)
    written(source_of(tmp_path, ("x.json", "http://localhost")), tmp_path)
    with pytest.raises(UserError, match="1 segmentation_malformed"):
        select_all(tmp_path)


def test_a_run_length_encoding_in_a_list_may_contain_nan(tmp_path: Path) -> None:
    content = document("1.png", width=60, height=40)
    content["annotations"][0]["segmentation"] = [LENGTHS | {"counts": [float("nan")]}]
    write(tmp_path / "x.json", content)
    written(source_of(tmp_path, ("x.json", "http://localhost")), tmp_path)
    with pytest.raises(UserError, match="1 segmentation_malformed"):
        select_all(tmp_path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(value, 0) for value in (0, 0.0, False, None, "", "0", "0.0", "false", "No")],
        *[(value, 1) for value in (1, 1.0, True, "1", "1.0", "True", " yes ")],
        *[(value, value) for value in (2, 0.5, "maybe", [0])],
    ],
)
def test_iscrowd_is_read_in_every_form(tmp_path: Path, value: Any, expected: Any) -> None:
    content = document("1.png", width=60, height=40)
    content["annotations"][0]["iscrowd"] = value
    write(tmp_path / "x.json", content)
    written(source_of(tmp_path, ("x.json", "http://localhost")), tmp_path)
    [annotation] = json.loads((tmp_path / "instances.json").read_bytes())["annotations"]
    assert annotation["iscrowd"] == expected
    assert type(annotation["iscrowd"]) is type(expected)


def test_the_url_of_lvis_takes_the_place_of_a_missing_name(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/train2017"
    content = document("", "b.png", width=60, height=40)
    content["images"].append({"id": 2, "width": 60, "height": 40})
    for entry, name in zip(content["images"], "acd", strict=True):
        entry["coco_url"] = f"{url}/{name}.png"
    write(tmp_path / "x.json", content)
    for name in "abcd":
        draw(tmp_path / f"train2017/{name}.png", {})
    for base in (".", "http://images.cocodataset.org"):
        images = written(source_of(tmp_path, ("x.json", base)), tmp_path).images
        assert all(image.rejected is None for image in images)
        prefix = f"{tmp_path}" if base == "." else base
        sources = [image.source.removeprefix(f"{prefix}/") for image in images]
        other = "b.png" if base != "." else "train2017/b.png"
        assert sources == ["train2017/a.png", other, "train2017/d.png"]


def test_a_gzipped_file_is_read_under_any_name_and_a_damaged_one_named(tmp_path: Path) -> None:
    content = gzip.compress(json.dumps(document("1.png", width=60, height=40)).encode())
    for name in ("x.json.gz", "x.json"):
        (tmp_path / name).write_bytes(content)
        images = written(source_of(tmp_path, (name, "http://localhost")), tmp_path).images
        assert [image.annotation_file for image in images] == [name]
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    for damaged in (content[:-9], content[:12], bytes(flipped), content + b"more"):
        (tmp_path / "x.json.gz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"x\.json\.gz is damaged: .+") as error:
            written(source_of(tmp_path, ("x.json.gz", "http://localhost")), tmp_path)
        assert len(str(error.value).splitlines()) == 1


# --- Names of files ---------------------------------------------------------------------------


def test_other_fields_of_an_image_are_kept(tmp_path: Path) -> None:
    draw(tmp_path / "1.png", {})
    content = document("1.png", video=7)
    content["images"][0] |= {"source": "https://elsewhere", "tags": ["a"], "rejected": True}
    write(tmp_path / "x.json", content)
    written(source_of(tmp_path, ("x.json", ".")), tmp_path)
    [image] = json.loads((tmp_path / "instances.json").read_bytes())["images"]
    assert image["video"] == 7
    assert image["tags"] == ["a"]
    assert image["source"] == f"{tmp_path}/1.png"
    assert "rejected" not in image


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    draw(tmp_path / "1.png", {})
    content = json.dumps(document("1.png")).encode("utf-8-sig")
    (tmp_path / "x.json").write_bytes(content)
    instances = written(source_of(tmp_path, ("x.json", ".")), tmp_path)
    assert names_and_reasons(instances) == {"1.png": None}
    assert len(instances.annotations) == 1


def test_a_field_that_utf8_cannot_encode_does_not_reject_its_entry(tmp_path: Path) -> None:
    draw(tmp_path / "1.png", {})
    content = document("1.png")
    content["annotations"][0]["half \ud800"] = content["images"][0]["half \ud800"] = "\udfff"
    write(tmp_path / "x.json", content)
    instances = written(source_of(tmp_path, ("x.json", ".")), tmp_path)
    assert names_and_reasons(instances) == {"1.png": None}
    assert len(instances.annotations) == 1


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("1.png", "1.png"),
        ("./a//1.png", "a/1.png"),
        ("A\\a\\1.png", "a/1.png"),
        ("/srv/x/a/1.png", "a/1.png"),
        ("2.png", "b/2.png"),
        ("b%2F2.png", "b/2.png"),
        ("../../b/2.png", "b/2.png"),
        ("../../upload/4/2.png", "b/2.png"),
        ("https://bucket/b/2.png?sign=1", "b/2.png"),
        ("/data/local-files/?d=x%2Fb%2F2.png", "b/2.png"),
        ("images/1234abcd-2.png", None),
        ("1234abcd-2.png", "b/2.png"),
        ("1234abcd__2.png", "b/2.png"),
        ("1234abcd_2.png", None),
        ("1234abcx__2.png", None),
        ("1.PNG", "1.png"),
        ("x/2.PNG", None),
        ("b/2.Png", "b/2.png"),
        ("1234abcd__2.PNG", "b/2.png"),
        ("B/2.png", None),
        ("é.PNG", "\u00e9.png"),
        ("5.png", ["5.PNG", "5.Png"]),
        ("5.PNG", "5.PNG"),
        ("6.jpg", None),
        ("6.jfif", "6.JFIF"),
        ("readme", None),
        ("c/2.png", None),
        ("3.png", ["a/3.png", "b/3.png"]),
        ("b/3.png", "b/3.png"),
        ("../d/4.png", "c/d/4.png"),
        ("e\u0301.png", "\u00e9.png"),
        ("\u00fc/\u00f1.png", "u\u0308/n\u0303.png"),
        ("../secret.png", None),
        ("b", None),
        ("", None),
    ],
)
def test_a_name_matches_the_path_with_the_longest_common_end(
    tmp_path: Path, name: str, found: str | list[str] | None
) -> None:
    paths = ["1.png", "0/a/1.png", "a/1.png", "b/2.png", "a/3.png", "b/3.png", "c/4.png"]
    paths += ["c/d/4.png", "\u00e9.png", "u\u0308/n\u0303.png"]
    for path in [*paths, "5.PNG", "5.Png", "6.JFIF", "README"]:
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / path).touch()
    (tmp_path / "secret.png").touch()
    directory = ImageDirectory(tmp_path / "images")
    if isinstance(found, str):
        assert directory.find(name) == found
        return
    with pytest.raises(NoMatch) as error:
        directory.find(name)
    assert error.value.reason == ("image_ambiguous" if found else "image_not_found")
    assert all(path in error.value.detail for path in found or [name])


def test_links_to_directories_are_followed_once(tmp_path: Path) -> None:
    for path in ("images/v2/a.png", "far/deep/b.png", "far/c.png", "other/d.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    images = tmp_path / "images"
    (images / "current").symlink_to("v2")
    (images / "far").symlink_to(tmp_path / "far")
    (images / "loop").symlink_to(".")
    (images / "gone").symlink_to("nowhere")
    (tmp_path / "far/deep/back").symlink_to(images)
    (tmp_path / "far/deep/other").symlink_to(tmp_path / "other")
    directory = ImageDirectory(images)
    for name in ("a.png", "v2/a.png", "current/a.png"):
        assert directory.find(name) == "v2/a.png"
    for name in ("b.png", "deep/b.png", "far/deep/b.png", "far/deep/b.PNG"):
        assert directory.find(name) == "far/deep/b.png"
    assert directory.find("c.png") == "far/c.png"
    assert directory.find("d.png") == "far/deep/other/d.png"
    (tmp_path / "other/c.png").touch()
    with pytest.raises(NoMatch, match=r"c\.png matches far/c\.png, far/deep/other/c\.png"):
        ImageDirectory(images).find("c.png")


# --- Images -----------------------------------------------------------------------------------


def test_only_changed_images_are_copied_again(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        draw(tmp_path / "own" / name, {LEFT: "cat"})
    write(tmp_path / "own/x.json", document("1.png", "2.png"))
    source, directory = source_of(tmp_path / "own", ("x.json", ".")), tmp_path / "images"
    images = written(source, tmp_path).images
    assert update_images(source, images, directory) == ImagesReport(0, 2, 0)
    draw(tmp_path / "own/2.png", {RIGHT: "dog"})
    assert update_images(source, images, directory) == ImagesReport(1, 1, 0)
    assert (directory / "2.png").read_bytes() == (tmp_path / "own/2.png").read_bytes()
    content, copy = (tmp_path / "own/1.png").read_bytes(), directory / "1.png"
    copy.write_bytes(content[:-1] + b"x")
    shutil.copystat(tmp_path / "own/1.png", copy)  # equal size and time, other content
    assert update_images(source, images, directory) == ImagesReport(1, 1, 0)
    assert copy.read_bytes() == content
    assert update_images(source, images[:1], directory) == ImagesReport(1, 0, 1)
    (tmp_path / "own/1.png").unlink()
    (directory / "1.png").unlink()
    with pytest.raises(UserError, match=r"1 of 1 files could not be fetched .*1\.png: no such"):
        update_images(source, images[:1], directory)


def test_images_of_another_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"1\.jpg was selected from another source; run `dvc repro`"
    ):
        source_of(tmp_path, ("x.json", ".")).fetch_images([ImageRecord(1, "1.jpg", 9, 9)], tmp_path)


# --- URLs -------------------------------------------------------------------------------------


def png_bytes(directory: Path, objects: dict[Box, str]) -> bytes:
    draw(directory / "drawn.png", objects)
    return (directory / "drawn.png").read_bytes()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MisbehavingServer]:
    content = document("sub/a #b.png", "c.png", "../../c.png", width=60, height=40)
    content["images"].append({"id": 9, "file_name": "sizeless.png"})
    files = {
        "/x/annotations.json": json.dumps(content).encode(),
        "/x/images/sub/a #b.png": png_bytes(tmp_path, {LEFT: "cat"}),
        "/x/images/c.png": png_bytes(tmp_path, {RIGHT: "dog"}),
    }
    with MisbehavingServer(files) as running:
        yield running


def test_annotations_and_images_are_fetched_from_urls_and_each_image_only_once(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    pair = f"{server.url}/x/annotations.json", f"{server.url}/x/images/"
    source, directory = source_of(tmp_path, pair), tmp_path / "images"
    instances = written(source, tmp_path)
    assert names_and_reasons(instances) == {
        "sub+a #b.png": None,
        "c.png": None,
        "../../c.png": "image_not_found",
        "sizeless.png": "size_missing",
    }
    images = instances.images[:2]
    assert update_images(source, images, directory) == ImagesReport(0, 2, 0)
    assert (directory / "c.png").read_bytes() == server.files["/x/images/c.png"]
    server.requests.clear()
    (directory / "c.png").unlink()
    assert update_images(source, images, directory) == ImagesReport(1, 1, 0)
    assert server.requests == []


def test_a_url_may_be_longer_than_a_file_name(server: MisbehavingServer, tmp_path: Path) -> None:
    name = "/x/" + "\N{CAT FACE}" * 90 + ".json"
    server.files[name] = server.files["/x/annotations.json"]
    source = source_of(tmp_path, (f"{server.url}{name}", f"{server.url}/x/images/"))
    assert "c.png" in names_and_reasons(written(source, tmp_path))


def test_a_name_that_utf8_cannot_encode_is_not_requested(tmp_path: Path) -> None:
    write(tmp_path / "x.json", document("\ud800.png", "a.png", width=60, height=40))
    instances = written(source_of(tmp_path, ("x.json", "http://localhost/images")), tmp_path)
    assert names_and_reasons(instances) == {"?.png": "image_not_found", "a.png": None}


def test_images_of_the_same_name_at_another_url_replace_the_old_ones(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    server.files["/y/images/c.png"] = png_bytes(tmp_path, {RIGHT: "cat"})
    directory = tmp_path / "images"
    for base in "xy":
        pair = f"{server.url}/x/annotations.json", f"{server.url}/{base}/images"
        source = source_of(tmp_path, pair)
        [image] = written(source, tmp_path).images[1:2]
        update_images(source, [image], directory)
        assert (directory / "c.png").read_bytes() == server.files[f"/{base}/images/c.png"]
