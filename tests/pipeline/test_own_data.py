"""An export of a labeling tool, from the annotations to the report, by parameters only."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.exports import Box, draw, polygon, write

from .conftest import Project, make_project, stages_run

pytestmark = pytest.mark.xdist_group("own data")

CLASSES = ["cow / 牛", """it's a "cat", 50%""", "dog"]
"""Names with a path separator, quotes, a comma and characters that most fonts lack."""
IMAGES = 24


def write_export(directory: Path) -> None:
    """Write annotations and images, whose file names repeat in two directories."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for id in range(IMAGES):
        kind = id % 3
        box: Box = (int(rng.integers(4, 30)), int(rng.integers(4, 20)), 24, 20)
        name = f"camera {id % 2}/{id // 2}.png"
        draw(directory / "images" / name, {box: ("cow / 牛", "cat", "dog")[kind]}, (64, 48))
        images.append({"id": id, "file_name": name})
        annotation = {"id": id, "image_id": id, "category_id": kind, "iscrowd": 0}
        annotations.append({**annotation, "segmentation": polygon(box)})
    categories = [{"id": id, "name": name} for id, name in enumerate(CLASSES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    write(directory / "annotations.json", document)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run of the published network on an export that DVC tracks."""
    project = make_project(tmp_path_factory.mktemp("own"))
    write_export(project.directory / "data/own/farm")
    project.set_params(
        {
            "download.source": "files",
            "download.files.pairs": [
                {"annotations": "farm/annotations.json", "images": "farm/images"}
            ],
            "filter.classes": "all",
            "split.ratios": {"train": 2, "val": 1, "test": 1},
            "train.architecture": "deeplabv3_mobilenet_v3_large",
            "train.aux_weight": 0.5,
            "train.epochs": 1,
        }
    )
    project.succeed("dvc", "add", "-q", "data/own/farm")
    project.succeed("dvc", "repro")
    project.commit("own data")
    return project


def read_json(project: Project, name: str) -> dict[str, dict[str, object]]:
    content: dict[str, dict[str, object]] = json.loads((project.directory / name).read_bytes())
    return content


def test_metrics_and_report_have_the_class_names_of_the_export(own: Project) -> None:
    assert list(read_json(own, "metrics/filter.json")["classes"]) == CLASSES
    assert list(read_json(own, "metrics/mask.json")["fraction"])[2:] == CLASSES
    assert list(read_json(own, "metrics/test.json")["iou"]) == ["background", *CLASSES]
    curves = sorted((own.directory / "metrics/train/plots/metrics/val/iou").iterdir())
    assert [path.name for path in curves] == [
        "background.tsv",
        "cow + 牛.tsv",
        "dog.tsv",
        "it%27s a %22cat%22, 50%25.tsv",
    ]
    page = (own.directory / "metrics/report.html").read_text(encoding="utf-8")
    assert page.count("cow / 牛") > 5
    assert "it&#39;s a &#34;cat&#34;, 50%" in page


def test_dvc_shows_metrics_and_plots_of_unusual_class_names(own: Project) -> None:
    shown = json.loads(own.succeed("dvc", "metrics", "show", "--json"))
    scores = shown[""]["data"]["metrics/test.json"]["data"]
    assert list(scores["iou"]) == ["background", *CLASSES]
    own.succeed("dvc", "plots", "show")
    page = (own.directory / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert re.findall(r"vegaEmbed\('[^']*_iou_it[^']*', spec\)", page)


def test_a_second_run_does_nothing_and_git_tracks_no_image(own: Project) -> None:
    assert stages_run(own.succeed("dvc", "repro")) == []
    tracked = own.succeed("git", "ls-files", "data/own").split()
    assert tracked == ["data/own/.gitignore", "data/own/farm.dvc"]


def test_a_changed_image_or_annotation_reruns_the_stages_that_read_it(
    own: Project, tmp_path: Path
) -> None:
    project = own.copy(tmp_path / "project")
    farm = project.directory / "data/own/farm"
    draw(farm / "images/camera 0/0.png", {(0, 0, 30, 30): "dog"}, (64, 48))
    assert stages_run(project.succeed("dvc", "repro", "images", "mask")) == ["download", "images"]
    copy = project.directory / "data/images/camera 0+0.png"
    assert copy.read_bytes() == (farm / "images/camera 0/0.png").read_bytes()
    path = farm / "annotations.json"
    document = json.loads(path.read_bytes())
    document["annotations"][0]["segmentation"] = polygon((0, 0, 30, 30))
    write(path, document)
    ran = stages_run(project.succeed("dvc", "repro", "images", "mask"))
    assert sorted(ran) == ["download", "filter", "images", "mask"]
