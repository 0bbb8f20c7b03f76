"""The stage split on photos of which some are nearly the same, or belong together."""

import csv
import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from stages import split as stage
from tests import ROOT
from tests.coco_files import annotation, image, write_instances

from .conftest import Project

COUNT = 40


@pytest.fixture
def directory(tmp_path: Path) -> Project:
    """What split reads: 40 photos of 8 videos; each of the last 8 is one of the first, mirrored."""
    project = Project(tmp_path)
    (tmp_path / "data/annotations").mkdir(parents=True)
    (tmp_path / "data/images").mkdir()
    entries = [image(id, 96, 72, video_id=id % 8) for id in range(COUNT)]
    instances = write_instances(
        tmp_path / "data/annotations/instances.json",
        entries,
        [annotation(id, id, category_id=10 * (id % 2 + 1)) for id in range(COUNT)],
    )
    shutil.copy(instances, tmp_path / "data/selection.json")
    for id in range(COUNT):
        noise = np.random.default_rng(id % 32).normal(size=(72, 96))
        blots = gaussian_filter(noise, 2)
        pixels = ((blots / blots.std()).clip(-2, 2) * 60 + 128).astype(np.uint8)
        photo = Image.fromarray(pixels if id < 32 else pixels[:, ::-1])
        photo.save(tmp_path / f"data/images/{id}.jpg", quality=60)
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return project


def split(project: Project, **params: Any) -> tuple[dict[str, list[str]], dict[str, int]]:
    """The splits that the stage writes with these parameters, and the near-duplicates it counts."""
    project.set_params({f"split.{name}": value for name, value in params.items()})
    project.set_params({"runtime.workers": 0})
    with chdir(project.directory):
        stage.main()
    splits = {
        name: (project.directory / f"data/splits/{name}.txt").read_text().split()
        for name in ("train", "val", "test")
    }
    summary = json.loads((project.directory / "metrics/split.json").read_text())
    assert {name: summary[name]["images"] for name in splits} == {
        name: len(stems) for name, stems in splits.items()
    }
    return splits, summary["near_duplicates"]


def test_near_duplicates_are_counted_and_kept_together(directory: Project) -> None:
    apart, counted = split(directory, keep_duplicates_together=False)
    split_of = {stem: name for name, stems in apart.items() for stem in stems}
    across = sum(split_of[str(id)] != split_of[str(id + 32)] for id in range(8))
    assert across > 0
    assert counted == {"pairs": 8, "across_splits": across}
    with (directory.directory / "data/near_duplicates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["first"], row["second"]) for row in rows} == {
        tuple(sorted((str(id), str(id + 32)))) for id in range(8)
    }
    assert all(row["first_split"] == split_of[row["first"]] for row in rows)

    together, counted = split(directory, keep_duplicates_together=True)
    assert counted == {"pairs": 8, "across_splits": 0}
    assert sorted(stem for stems in together.values() for stem in stems) == sorted(split_of)


@pytest.mark.parametrize("fold", [None, 0])
def test_videos_are_not_divided(directory: Project, fold: int | None) -> None:
    splits, _ = split(
        directory, group_by="video_id", keep_duplicates_together=False, fold=fold, folds=3
    )
    videos = [{int(stem) % 8 for stem in stems} for stems in splits.values()]
    assert all(videos)
    assert sum(map(len, videos)) == 8


def test_a_field_that_is_not_there_is_one_line_and_changes_nothing(directory: Project) -> None:
    split(directory)
    before = directory.results("data", "metrics/split.json")
    directory.set_params({"split.group_by": "scene"})
    failed = directory.run("python", "-m", "stages.split", PYTHONPATH=str(ROOT))
    assert failed.returncode == 1
    assert failed.stderr == (
        "error: split.group_by: the entry of 0.jpg in data/annotations/instances.json has no "
        "field 'scene'; its fields are: id, file_name, width, height, video_id\n"
    )
    assert directory.results("data", "metrics/split.json") == before
