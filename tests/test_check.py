"""`cocoseg check`: an export is read as the pipeline would, and nothing is written."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cocoseg.check import check_export, next_step
from cocoseg.cli import main
from cocoseg.core.errors import UserError
from cocoseg.params.download import FilesParams
from tests import ROOT
from tests.coco_files import annotation, image, write_instances

BEYOND = [[15.0, 2.0, 22.5, 2.0, 22.5, 8.0]]


def write_export(directory: Path, images: list[Any], annotations: list[Any]) -> tuple[str, str]:
    """Write a COCO file and the images 1.jpg to 5.jpg; return both locations."""
    (directory / "images").mkdir(parents=True)
    for number in range(1, 6):
        Image.new("RGB", (20, 10)).save(directory / f"images/{number}.jpg")
    file = write_instances(directory / "a.json", images, annotations)
    return str(file), str(directory / "images")


@pytest.fixture
def export(tmp_path: Path) -> tuple[str, str]:
    """Six images, of which one has no file and two have no objects."""
    entries = [
        annotation(1, 1),
        annotation(2, 1, BEYOND, category_id=20),
        annotation(3, 2, iscrowd=1),
        annotation(4, 2, None, bbox=[1, 1, 5, 5]),
        annotation(5, 3, category_id=20),
        annotation(6, 6),
    ]
    return write_export(tmp_path / "farm", [image(n) for n in range(1, 7)], entries)


@pytest.mark.parametrize("command", ["check", "--help"])
def test_a_closed_pipe_ends_the_command_without_a_traceback(
    command: str, export: tuple[str, str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["-m", "cocoseg.cli", command, *(export if command == "check" else ())]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writer)
    assert done.stderr == ""
    # Without Python's buffer, argparse ignores the error.
    assert done.returncode == 141 or (command == "--help" and done.returncode == 0)


def test_everything_that_is_kept_and_rejected_is_listed(export: tuple[str, str]) -> None:
    lines = check_export(*export).as_text().splitlines()
    assert lines[0] == "images: 6, 1 unusable, 3 kept"
    assert any(line.startswith("  2 over_empty_fraction: ") for line in lines)
    found = lines.index(
        "  1 image_not_found: No image file matches the file name. Add the file, or correct "
        "`images` in `download.files.pairs`."
    )
    assert lines[found + 1] == "    first: 6.jpg"
    assert "annotations: 4 kept, 2 rejected" in lines
    assert (
        "  1 bbox_only: The annotation has a bounding box but no outline. Export polygons or masks."
    ) in lines
    assert lines[-7:] == [
        "annotations clipped to their image: 1, by up to 2.5 pixels",
        "rejected annotations whose pixels are ignored, not background: 1 in 1 of the kept images",
        "crowd regions (iscrowd: 1): 1, painted like objects (mask.crowd: paint)",
        "",
        "class      images  annotations",
        "cat             2            2",
        "dog             2            2",
    ]


def test_images_without_objects_are_counted(tmp_path: Path) -> None:
    entries = [annotation(n, n) for n in range(1, 5)]
    export = write_export(tmp_path, [image(n) for n in range(1, 6)], entries)
    assert "images without objects: 1 kept" in check_export(*export).as_text().splitlines()


def test_only_the_named_classes_are_counted(export: tuple[str, str]) -> None:
    lines = check_export(*export, ["dog"]).as_text().splitlines()
    assert lines[-1].split() == ["dog", "2", "2"] and lines[-2].startswith("class ")
    with pytest.raises(UserError, match="unknown class 'cow "):
        check_export(*export, ["cow "])


def test_the_command_prints_what_to_run_next_and_writes_no_file(
    export: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    main(["check", "farm/a.json", "farm/images"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "next: run `cp presets/own_data.yaml params.yaml`, set in it download.files: "
        "{directory: farm, pairs: [{annotations: a.json, images: images}]}, and run `make repro`"
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_if_nothing_is_left_the_reasons_are_printed_and_the_status_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [annotation(n, n, None, bbox=[1, 1, 5, 5]) for n in (1, 2)]
    arguments = write_export(tmp_path, [image(1), image(2)], boxes)
    # Python prints the message, and the exit status is 1.
    with pytest.raises(SystemExit, match=r"^error: nothing is left to train on"):
        main(["check", *arguments])
    printed = capsys.readouterr()
    assert "images: 2, 0 unusable, 0 kept" in printed.out
    assert "  2 bbox_only: " in printed.out and "Export polygons or masks." in printed.out
    assert "next:" not in printed.out


@pytest.mark.parametrize(
    ("annotations", "images", "classes"),
    [
        ("/farm 1/a.json", "/farm 1/images", "all"),
        ("/farm/a.json", "/farm", ["cow", "1", "no: yes"]),
        ("https://example.org/a.json", "https://example.org/images", "all"),
    ],
)
def test_the_next_step_is_valid_yaml(annotations: str, images: str, classes: Any) -> None:
    text = next_step(annotations, images, classes)
    found = yaml.safe_load(text.partition("download.files: ")[2].partition("}]}")[0] + "}]}")
    files = FilesParams(**found)
    (pair,) = files.pairs
    for location, expected in ((pair.annotations, annotations), (pair.images, images)):
        joined = location if "://" in location else str(Path(files.directory, location))
        assert joined == expected
    if classes != "all":
        listed = text.partition("filter.classes: ")[2].partition("]")[0] + "]"
        assert yaml.safe_load(listed) == classes


def test_a_missing_file_and_a_wrong_url_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json is not a file; check it"):
        check_export(str(tmp_path / "none.json"), str(tmp_path))
    with pytest.raises(UserError, match=r"expected paths or http://"):
        check_export("ftp://example.org/a.json", str(tmp_path))


def test_the_settings_are_those_of_the_preset(
    export: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = yaml.safe_load((ROOT / "presets/own_data.yaml").read_text(encoding="utf-8"))
    used: dict[str, Any] = {}
    monkeypatch.setattr("cocoseg.check.select", lambda read, classes, **more: used.update(more))
    with pytest.raises(AttributeError):
        check_export(*export)
    expected = {k: v for k, v in preset["filter"].items() if k not in ("classes", "exclude")}
    assert used == expected
    assert preset["filter"]["classes"] == "all" and preset["mask"]["crowd"] == "paint"
