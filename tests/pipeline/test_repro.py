"""The results of `dvc repro`, and its errors for invalid parameters."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Project

pytestmark = pytest.mark.xdist_group("pipeline")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_writes_consistent_results(finished: Project) -> None:
    directory = finished.directory
    counts = read_json(directory / "metrics/filter.json")
    assert counts["images_kept"] == 40
    assert counts["images_kept"] + sum(counts["images_dropped"].values()) == counts["images_total"]
    stems = {path.stem for path in (directory / "data/images").iterdir()}
    assert len(stems) == 40
    assert {path.stem for path in (directory / "data/masks").iterdir()} == stems
    split = [
        (directory / f"data/splits/{name}.txt").read_text() for name in ("train", "val", "test")
    ]
    assert [text.count("\n") for text in split] == [32, 4, 4]
    assert sorted("".join(split).split()) == sorted(stems)
    predicted = {path.stem for path in (directory / "data/predictions").iterdir()}
    assert predicted == set("".join(split[1:]).split())
    training = read_json(directory / "metrics/train/metrics.json")
    assert read_json(directory / "metrics/val.json")["miou"] == training["val"]["miou"]
    scores = read_json(directory / "metrics/test.json")
    assert scores["images"] == read_json(directory / "metrics/val.json")["images"] == 4
    assert list(scores["iou"]) == [
        "background",
        "person",
        "bicycle",
        "car",
        "motorcycle",
        "airplane",
    ]
    assert len(list((directory / "metrics/examples").iterdir())) == 2
    assert (directory / "models/model.safetensors").is_file()


def test_masks_have_the_size_of_their_images_and_contain_only_labels(finished: Project) -> None:
    for path in (finished.directory / "data/masks").iterdir():
        with (
            Image.open(path) as mask,
            Image.open(finished.directory / f"data/images/{path.stem}.jpg") as image,
        ):
            assert mask.size == image.size
            assert set(np.unique(np.asarray(mask))) <= {0, 1, 2, 3, 4, 5, 255}


def test_a_second_run_does_nothing_even_with_other_runtime_parameters(project: Project) -> None:
    project.set_params({"runtime.workers": 1, "runtime.connections": 3, "runtime.device": "auto"})
    output = project.succeed("dvc", "repro")
    assert "Running stage" not in output
    assert "up to date" in output


def test_dvc_plots_shows_all_plots(project: Project) -> None:
    project.succeed("dvc", "plots", "show", "--out", "shown")
    page = (project.directory / "shown/index.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'id ?= ?"(\w+)"', page))
    roots = [
        project.directory / "metrics" / path for path in ("data", "examples", "plots", "train")
    ]
    paths = [path for root in roots for path in root.rglob("*.[cpt][sn][vg]")]
    assert {path.suffix for path in paths} == {".csv", ".png", ".tsv"}
    names = (path.relative_to(project.directory).as_posix() for path in paths)
    assert shown == {re.sub(r"\W", "_", name) for name in names}
    rows = (project.directory / "metrics/plots/confusion.csv").read_text().splitlines()
    assert len(rows) == 1 + 6 * 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filter.max_instance": 3}, "filter.max_instance: unknown key"),
        ({"filter.max_instances": "ten"}, "filter.max_instances: "),
        ({"filter.max_instances": 0}, "filter.max_instances: "),
        ({"filter.classes": ["person", "unicorn"]}, "filter.classes: unknown class 'unicorn'"),
        ({"train.epochs": -1}, "train.epochs: "),
        ({"mask.overlap": "first"}, "mask.overlap: "),
    ],
)
def test_an_invalid_parameter_is_reported_in_one_line_with_its_key(
    project: Project, change: dict[str, object], message: str
) -> None:
    project.set_params(change)
    result = project.run("python", "-m", "stages.filter")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
