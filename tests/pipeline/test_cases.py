"""Exports as labeling tools really write them: the data stages keep what other readers keep.

The inputs are in `../shared/cases`, beside the project; a clone without them skips these tests.
"""

import csv
import json
import logging
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX, read_mask
from stages import download, filter, images, mask, near_duplicates, split
from tests import ROOT

CASES = ROOT.parent / "shared/cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the project")

STAGES: tuple[Callable[[], Any], ...] = (
    download.main,
    filter.main,
    images.main,
    mask.main,
    near_duplicates.main,
    split.main,
)


class Run:
    """The data stages on a case, in a directory of their own."""

    def __init__(self, directory: Path, case: str, changes: dict[str, Any]) -> None:
        self.directory = directory
        params = yaml.safe_load((ROOT / "presets/own_data.yaml").read_text(encoding="utf-8"))
        files = sorted((CASES / case).glob("*.json*"))
        params["download"]["files"] = {
            "directory": str(CASES / case),
            "pairs": [{"annotations": file.name, "images": "images"} for file in files],
        }
        params["split"]["ratios"] = {"train": 1, "val": 0, "test": 0}
        params["runtime"]["workers"] = 0
        params["filter"]["exclude"] = "exclude.csv"
        for key, value in changes.items():
            section, name = key.split(".")
            params[section][name] = value
        directory.mkdir(exist_ok=True)
        (directory / "exclude.csv").write_text("image_id,annotation_id\n", encoding="utf-8")
        (directory / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        with chdir(directory):
            for stage in STAGES:
                stage()

    def json(self, path: str) -> Any:
        return json.loads((self.directory / path).read_text(encoding="utf-8"))

    def mask(self, stem: str) -> NDArray[np.uint8]:
        return read_mask(self.directory / f"data/masks/{stem}.png")

    def rejected(self) -> list[dict[str, str]]:
        return rejected(self.directory)


def rejected(directory: Path) -> list[dict[str, str]]:
    with (directory / "data/rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def polygons(case: str) -> dict[int, Any]:
    document = json.loads((CASES / case / "a.json").read_text(encoding="utf-8"))
    return {entry["id"]: entry["segmentation"] for entry in document["annotations"]}


def painted(polygon: list[list[float]]) -> NDArray[np.bool_]:
    """The pixels that pycocotools itself sets, in an image of 64 x 48."""
    rle = coco_mask.merge(coco_mask.frPyObjects(polygon, 48, 64))
    return coco_mask.decode(rle).astype(bool)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    def start(case: str, **changes: Any) -> Run:
        return Run(tmp_path / case, case, {k.replace("__", "."): v for k, v in changes.items()})

    return start


@pytest.mark.parametrize("out_of_bounds", ["drop", "clip"])
def test_rounding_noise_is_within_the_image(run: Callable[..., Run], out_of_bounds: str) -> None:
    done = run("overshoot_1e-13", filter__out_of_bounds=out_of_bounds)
    assert done.rejected() == []
    expected = painted(polygons("overshoot_1e-13")[4])
    assert expected.any()
    assert (done.mask("p1")[expected] == 2).all()


def test_an_outline_beyond_the_image_is_clipped_as_pycocotools_does(
    run: Callable[..., Run],
) -> None:
    done = run("overshoot_negative", filter__out_of_bounds="clip")
    assert done.rejected() == []
    summary = done.json("metrics/filter.json")
    assert summary["clipped"] == {"annotations": 1, "largest": 1.0}
    assert ((done.mask("p1") == 2) == painted(polygons("overshoot_negative")[4])).all()


def test_an_outline_beyond_the_image_is_ignored_where_it_is_dropped(
    run: Callable[..., Run],
) -> None:
    done = run("overshoot_negative", filter__out_of_bounds="drop")
    assert [row["reason"] for row in done.rejected()] == ["out_of_bounds"]
    labels = done.mask("p1")
    assert (labels[30:47, 0:20] == IGNORE_INDEX).all()
    assert (labels == IGNORE_INDEX).sum() == 17 * 20
    assert done.json("metrics/filter.json")["ignored"] == {"annotations": 1, "images": 1}


def test_masks_marked_as_crowds_are_reported_before_training(
    run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        done = run("crowd_all", mask__crowd="ignore")
    assert set(np.unique(done.mask("p1"))) == {0, IGNORE_INDEX}
    for name in ("cat", "dog"):
        assert any(name in r.message and "mask.crowd" in r.message for r in caplog.records)


def test_the_preset_for_own_data_paints_masks_marked_as_crowds(run: Callable[..., Run]) -> None:
    assert set(np.unique(run("crowd_all").mask("p1"))) == {0, 2}


def test_a_box_beside_outlines_is_ignored(run: Callable[..., Run]) -> None:
    done = run("bbox_beside_good")
    assert {row["reason"] for row in done.rejected()} == {"bbox_only"}
    labels = done.mask("p1")
    assert (labels[5:20, 45:60] == IGNORE_INDEX).all()
    assert (labels[10:30, 10:40] == 1).all()
    assert (labels == IGNORE_INDEX).sum() == 15 * 15


def test_boxes_alone_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 bbox_only.*Export polygons or masks"):
        Run(tmp_path / "boxes", "bbox_only", {})
    assert [row["reason"] for row in rejected(tmp_path / "boxes")].count("bbox_only") == 3


def test_a_flat_list_of_numbers_is_one_polygon(run: Callable[..., Run]) -> None:
    done = run("via_flat")
    assert done.rejected() == []
    expected = painted([[10, 10, 40, 10, 40, 30, 10, 30]])
    assert all(((done.mask(stem) == 1) == expected).all() for stem in ("p0", "p1", "p2"))


def test_a_stray_point_beside_a_polygon_is_left_out(run: Callable[..., Run]) -> None:
    done = run("point_beside_good")
    assert done.rejected() == []
    expected = painted([[45.0, 5.0, 60.0, 5.0, 60.0, 20.0, 45.0, 20.0]])
    assert ((done.mask("p1") == 2) == expected).all()


@pytest.mark.parametrize(("fraction", "kept"), [(0.0, 3), (0.25, 4), (0.4, 5), (1.0, 5)])
def test_images_without_objects_are_kept_up_to_a_fraction(
    run: Callable[..., Run], fraction: float, kept: int
) -> None:
    done = run("negatives", filter__empty_fraction=fraction)
    assert len(done.json("data/selection.json")["images"]) == kept
    assert done.json("metrics/filter.json")["images_empty"] == kept - 3
    empty = {"p4", "p5"} & {path.stem for path in (done.directory / "data/masks").iterdir()}
    assert len(empty) == kept - 3
    assert all(not done.mask(stem).any() for stem in empty)


def test_rejections_have_the_file_and_the_ids_of_the_source(run: Callable[..., Run]) -> None:
    rows = run("renumbered_ids").rejected()
    sources = {
        (
            r["reason"],
            r["annotation_file"],
            r["file_name"],
            r["source_annotation_id"],
            r["category"],
        )
        for r in rows
        if r["annotation_id"]
    }
    assert ("polygon_too_short", "a.json", "p9.jpg", "90", "cat") in sources


def test_an_image_over_the_limit_is_named_with_the_limit(run: Callable[..., Run]) -> None:
    done = run("large_photo")
    rows = {row["file_name"]: row for row in done.rejected() if not row["annotation_id"]}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "a.png": "image_too_large",
        "b.png": "image_too_large",
    }
    assert "67,108,864" in rows["a.png"]["detail"]


def test_run_lengths_in_a_list_are_read(run: Callable[..., Run]) -> None:
    done = run("rle_list")
    assert done.rejected() == []
    assert (done.mask("p1") == 2).sum() == 100


def test_annotations_of_an_image_that_is_listed_twice_are_joined(run: Callable[..., Run]) -> None:
    done = run("twice_listed")
    assert done.rejected() == []
    assert len(done.json("data/selection.json")["images"]) == 2
    assert set(np.unique(done.mask("p1"))) == {0, 1, 2}


def test_iscrowd_as_text_is_read(run: Callable[..., Run]) -> None:
    done = run("iscrowd_text", mask__crowd="drop")
    assert done.rejected() == []
    assert (done.mask("p1") == 1).any()


def test_annotations_without_a_category_are_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 unknown_category"):
        Run(tmp_path / "null", "category_null", {})


def test_a_gzipped_file_is_read(run: Callable[..., Run]) -> None:
    done = run("gzipped")
    assert done.rejected() == []
    assert len(done.json("data/selection.json")["images"]) == 3
