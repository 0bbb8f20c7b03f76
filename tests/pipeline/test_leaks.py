"""The stages near_duplicates and split on images that are near-duplicates or form groups."""

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

from stages import near_duplicates, split
from tests import ROOT
from tests.coco_files import annotation, image, write_instances

from .conftest import Project

COUNT = 40


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """40 images of 8 videos; images 32 to 39 are mirrored copies of images 0 to 7."""
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
        blobs = gaussian_filter(noise, 2)
        pixels = ((blobs / blobs.std()).clip(-2, 2) * 60 + 128).astype(np.uint8)
        content = Image.fromarray(pixels if id < 32 else pixels[:, ::-1])
        content.save(tmp_path / f"data/images/{id}.jpg", quality=60)
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    project.set_params({"runtime.workers": 0})
    with chdir(tmp_path):
        near_duplicates.main()
    return project


def run_split(project: Project, **params: Any) -> tuple[dict[str, list[str]], dict[str, int]]:
    """The splits for these parameters, and the counts of near-duplicates."""
    project.set_params({f"split.{name}": value for name, value in params.items()})
    with chdir(project.directory):
        split.main()
    splits = {
        name: (project.directory / f"data/splits/{name}.txt").read_text().split()
        for name in ("train", "val", "test")
    }
    summary = json.loads((project.directory / "metrics/split.json").read_text())
    assert {name: summary[name]["images"] for name in splits} == {
        name: len(stems) for name, stems in splits.items()
    }
    return splits, summary["near_duplicates"]


def test_near_duplicates_are_counted_and_kept_together(project: Project) -> None:
    apart, counted = run_split(project, keep_duplicates_together=False)
    split_of = {stem: name for name, stems in apart.items() for stem in stems}
    across = sum(split_of[str(id)] != split_of[str(id + 32)] for id in range(8))
    assert across > 0
    assert counted == {"pairs": 8, "across_splits": across}
    with (project.directory / "data/near_duplicates.csv").open(newline="") as file:
        pairs = [(row["first"], row["second"]) for row in csv.DictReader(file)]
    assert sorted(pairs) == sorted(tuple(sorted((str(id), str(id + 32)))) for id in range(8))

    together, counted = run_split(project, keep_duplicates_together=True)
    assert counted == {"pairs": 8, "across_splits": 0}
    assert sorted(stem for stems in together.values() for stem in stems) == sorted(split_of)


@pytest.mark.parametrize("fold", [None, 0])
def test_videos_are_not_divided(project: Project, fold: int | None) -> None:
    splits, _ = run_split(
        project, group_by="video_id", keep_duplicates_together=False, fold=fold, folds=3
    )
    videos = [{int(stem) % 8 for stem in stems} for stems in splits.values()]
    assert all(videos)
    assert sum(map(len, videos)) == 8


def test_a_missing_group_field_is_one_line_and_changes_no_file(project: Project) -> None:
    run_split(project)
    before = project.results("data", "metrics/split.json")
    project.set_params({"split.group_by": "scene"})
    failed = project.run("python", "-m", "stages.split", PYTHONPATH=str(ROOT))
    assert failed.returncode == 1
    assert failed.stderr == (
        "error: split.group_by: the entry of 0.jpg in data/annotations/instances.json has no "
        "field 'scene'; its fields are: id, file_name, width, height, video_id\n"
    )
    assert project.results("data", "metrics/split.json") == before
