"""`cocoseg compare`, `runs` and `suspects` on real revisions, experiments and the workspace.

The command itself starts once for each of its forms and ways to fail; all else is asked of the
functions behind it, in this process.
"""

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from dvc.api import DVCFileSystem
from dvc.repo import Repo
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.core.images import read_rgb
from cocoseg.core.labels import write_mask
from cocoseg.evaluation.label_errors import LabelError, read_label_errors
from cocoseg.evaluation.statistics import ImageCounts, ScoredRun
from cocoseg.evaluation.statistics import compare as compare_runs
from cocoseg.experiments.compare import (
    Result,
    Side,
    as_json,
    as_markdown,
    compare_revisions,
    photo_pixels,
)
from cocoseg.experiments.revisions import WORKSPACE, Revision
from cocoseg.experiments.runs import label_errors_page, runs_table
from cocoseg.inference.confusion import count_confusion

from .conftest import Project, Variants, stages_run

pytestmark = [
    pytest.mark.xdist_group("variants"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # dvc's own
]


@pytest.fixture
def varied(variants: Variants) -> Project:
    return variants.project


def state(project: Project) -> tuple[str, dict[str, str]]:
    return project.succeed("git", "status", "--short"), project.results()


def compare(project: Project, *names: str, same_ground_truth: bool = False) -> list[dict[str, Any]]:
    with chdir(project.directory):
        found: list[dict[str, Any]] = as_json(
            compare_revisions(names, same_ground_truth=same_ground_truth)
        )
    return found


def refusal(project: Project, *names: str) -> str:
    """Why the revisions cannot be compared."""
    with pytest.raises(UserError) as refused:
        compare(project, *names)
    return str(refused.value)


def error_of(project: Project, *command: str) -> str:
    """The one line of a command that fails."""
    result = project.run(*command)
    assert result.returncode == 1, result.stdout
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_scores_are_those_of_the_metrics_and_nothing_is_touched(varied: Project) -> None:
    before = state(varied)
    (found,) = json.loads(varied.succeed("cocoseg", "compare", "main", "seed-1", "--json"))
    scores = json.loads((varied.directory / "metrics/test.json").read_text(encoding="utf-8"))
    assert found["images"] == scores["images"]
    assert found["only_first"] == found["only_second"] == found["other_truth"] == 0
    assert found["differences"][0]["first"] == pytest.approx(scores["miou"], abs=1e-6)
    of_classes = {d["name"]: d["first"] for d in found["differences"][1:]}
    assert of_classes.keys() == scores["iou"].keys()
    for name, iou in scores["iou"].items():
        assert of_classes[name] == (None if iou is None else pytest.approx(iou, abs=1e-6))
    listed = json.loads(varied.succeed("dvc", "metrics", "diff", "--json", "main", "seed-1"))
    theirs = listed.get("metrics/test.json", {}).get("miou", {}).get("new", scores["miou"])
    assert found["differences"][0]["second"] == pytest.approx(theirs, abs=1e-6)
    assert state(varied) == before


def test_the_workspace_is_a_side_and_equal_runs_are_the_same(varied: Project) -> None:
    (found,) = compare(varied, "workspace", "HEAD")
    assert {d["difference"] for d in found["differences"]} <= {0, None}
    assert found["differences"][0]["verdict"] == "the same"


def test_scores_that_are_older_than_the_parameters_are_told(varied: Project) -> None:
    path = varied.directory / "params.yaml"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("  epochs: ", "  epochs: 1"), encoding="utf-8")
    try:
        with chdir(varied.directory):
            (result,) = compare_revisions(["HEAD", "workspace"])
            notes = [note for note in result.notes() if "params.yaml" in note]
            table = runs_table(["workspace", "HEAD"])
    finally:
        path.write_text(before, encoding="utf-8")
    epochs = next(line for line in before.splitlines() if "epochs:" in line).split()[1]
    assert f"workspace was scored with train.epochs={epochs}" in notes[0]
    head, workspace = table.splitlines()[1:]
    assert workspace.endswith(f"train.epochs=1{epochs}, but SCORED WITH train.epochs={epochs}")
    assert head.startswith("HEAD") and "SCORED" not in head


def test_a_pattern_is_a_group_and_its_seeds_are_covered(varied: Project) -> None:
    (found,) = compare(varied, "main", "seed-*")
    assert found["second"]["revisions"].keys() == {"seed-0", "seed-1"}
    assert "the training seed of seed-* (2 runs)" in found["covered"]
    assert found["not_covered"] == ["the training seed of main (one run)"]


def test_other_masks_are_another_truth_unless_both_are_scored_by_the_first(varied: Project) -> None:
    (found,) = compare(varied, "main", "void")
    assert found["other_truth"] > 0
    assert "WARNING" in varied.succeed("cocoseg", "compare", "main", "void")
    (same,) = compare(varied, "main", "void", same_ground_truth=True)
    assert same["other_truth"] == 0
    assert same["differences"][0]["first"] == found["differences"][0]["first"]


def test_with_the_same_truth_every_pixel_is_counted_against_the_first_masks(
    varied: Project,
) -> None:
    options = ("--same-truth", "--json")
    (found,) = json.loads(varied.succeed("cocoseg", "compare", "main", "void", *options))
    ignored = DVCFileSystem(str(varied.directory), rev="void")
    total = np.zeros((6, 6), np.int64)
    for path in ignored.ls("data/predictions", detail=False):
        with (
            ignored.open(path) as file,
            Image.open(file) as prediction,
            Image.open(varied.directory / "data/masks" / Path(path).name) as ground_truth,
        ):
            total += count_confusion(np.asarray(ground_truth), np.asarray(prediction), 6)
    background = found["differences"][1]
    expected = total[0, 0] / (total[0].sum() + total[:, 0].sum() - total[0, 0])
    assert background["second"] == pytest.approx(expected)


def test_a_page_shows_the_images_that_differ(varied: Project, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    varied.succeed("cocoseg", "compare", "main", "seed-1", "void", "--html", str(page))
    text = page.read_text(encoding="utf-8")
    counts = json.loads((varied.directory / "metrics/test_images.json").read_text(encoding="utf-8"))
    for stem in counts["confusions"]:
        assert text.count(f"photo of {stem}") == 2
    assert "<script" not in text and text.count('class="chart"') == 2


def test_runs_are_listed_with_what_was_changed(varied: Project) -> None:
    lines = varied.succeed("cocoseg", "runs").splitlines()
    assert lines[0].split() == ["run", "mean", "IoU", "95%", "interval", "images", "changed"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert rows.keys() == {"HEAD", "seed-0", "seed-1", "void"}
    assert rows["void"].endswith("mask.overlap=void")
    assert rows["seed-1"].endswith("train.seed=1")
    miou = json.loads((varied.directory / "metrics/test.json").read_text())["miou"]
    assert f"{miou:.4f}" in rows["HEAD"]


def test_suspects_of_several_runs_are_ranked_together_and_can_be_excluded(
    varied: Project, tmp_path: Path
) -> None:
    project = varied.copy(tmp_path / "project")
    table, page = project.directory / "all.csv", tmp_path / "page.html"
    options = ["--csv", str(table), "--html", str(page), "--first", "3"]
    printed = project.succeed("cocoseg", "suspects", "main", "seed-*", *options).splitlines()
    label_errors = read_label_errors(table.read_text(encoding="utf-8"))
    scores = [label_error.score for label_error in label_errors]
    assert scores == sorted(scores, reverse=True)
    alone = read_label_errors(
        (project.directory / "metrics/suspects.csv").read_text(encoding="utf-8")
    )
    assert {s.annotation_id for s in alone} <= {s.annotation_id for s in label_errors}
    ids = [s.annotation_id for s in label_errors if s.annotation_id is not None]
    assert len(ids) == len(set(ids)) >= 3
    assert len(printed) == 4 and printed[1].split()[0] == f"{scores[0]:.3f}"
    assert page.read_text(encoding="utf-8").count('src="data:image/jpeg') == 9

    excluded = [row for row in table.read_text().splitlines()[1:] if row.split(",")[1]][:3]
    list_of_mine = project.directory / "data/exclude.csv"
    list_of_mine.write_text(list_of_mine.read_text() + "\n".join(excluded) + "\n")
    assert stages_run(project.succeed("dvc", "repro", "mask")) == ["filter", "mask"]
    counts = json.loads((project.directory / "metrics/filter.json").read_text(encoding="utf-8"))
    assert counts["annotations_dropped"]["excluded"] >= 3
    list_of_mine.write_text("nonsense\n")
    message = error_of(project, "python", "-m", "stages.filter")
    assert message.startswith("error: data/exclude.csv: line 1: expected image_id,annotation_id")


def test_what_is_not_there_is_one_line_that_says_what_to_do(
    varied: Project, tmp_path: Path
) -> None:
    project = varied.copy(tmp_path / "project")
    assert "`dvc exp list -A`" in error_of(project, "cocoseg", "compare", "main", "nowhere")
    assert "see `dvc exp list -A`" in refusal(project, "main", "x-*")
    first = project.succeed("git", "rev-list", "--max-parents=0", "HEAD").strip()
    assert "has no metrics/test_images.json" in refusal(project, "main", first)
    assert "no DVC project here" in refusal(Project(tmp_path), "a", "b")
    with chdir(tmp_path), pytest.raises(UserError, match="no DVC project here"):
        runs_table([])

    damaged = project.directory / "metrics/test_images.json"
    content = damaged.read_bytes()
    for text in (
        b"{",
        b"{}",
        content.replace(b"[[", b"[[9,", 1),
        content.replace(b"]]", b"],1]", 1),
    ):
        damaged.unlink(missing_ok=True)
        damaged.write_bytes(text)
        assert "metrics/test_images.json is damaged" in refusal(project, "main", "workspace")

    damaged.write_bytes(content)
    prediction = next((project.directory / "data/predictions").iterdir())
    picture = prediction.read_bytes()
    prediction.unlink()
    prediction.write_bytes(picture[: len(picture) // 2])
    page = ["--html", str(tmp_path / "page.html")]
    assert f"data/predictions/{prediction.name} is damaged" in error_of(
        project, "cocoseg", "compare", "main", "workspace", *page
    )
    assert not (tmp_path / "page.html").exists()


def test_runs_that_test_other_images_or_know_other_classes_are_one_line(
    varied: Project, tmp_path: Path
) -> None:
    project = varied.copy(tmp_path / "project")
    path = project.directory / "metrics/test_images.json"
    counts = msgspec.json.decode(path.read_bytes())
    path.unlink()
    names = {stem: f"other_{stem}" for stem in counts["confusions"]}
    for key in ("confusions", "truths"):
        counts[key] = {names[stem]: value for stem, value in counts[key].items()}
    path.write_bytes(msgspec.json.encode(counts))
    assert "the runs have no test image in common" in refusal(project, "main", "workspace")
    counts["classes"] = ["background", *"abcde"]
    path.write_bytes(msgspec.json.encode(counts))
    assert "the runs have no class in common" in refusal(project, "main", "workspace")


def test_what_is_only_in_a_remote_is_read_from_there_and_what_is_nowhere_is_named(
    varied: Project, tmp_path: Path
) -> None:
    project = varied.copy(tmp_path / "project")
    here = compare(project, "main", "seed-1")
    # `dvc exp push` reads .dvc/config as the experiment's commit has it, which knows no remote, and
    # pushes nothing without a word; what is --local counts for every commit.
    storage = str(tmp_path / "storage")
    project.succeed("dvc", "remote", "add", "--local", "--default", "storage", storage)
    project.succeed("git", "init", "-q", "--bare", str(tmp_path / "git"))
    project.succeed("git", "remote", "add", "origin", str(tmp_path / "git"))
    project.succeed("git", "push", "-q", "origin", "main")
    project.succeed("dvc", "push")
    project.succeed("dvc", "exp", "push", "origin", "seed-1")
    shutil.rmtree(project.directory / ".dvc/cache")
    assert compare(project, "main", "seed-1") == here
    message = refusal(project, "main", "void")
    assert "void: metrics/test_images.json is neither in DVC's cache nor in a remote" in message
    assert "`dvc exp pull origin NAME`" in message


def test_a_comment_for_a_pull_request_tells_scores_parameters_and_which_is_better(
    varied: Project,
) -> None:
    comment = varied.succeed(".ci/compare", "main", "void")
    scores, parameters, better = comment.split("### ")[1:]
    assert "| metrics/test.json | miou" in scores
    assert "metrics/mask.json" not in scores
    assert "mask.overlap" in parameters
    assert "| mean IoU | " in better


def test_a_bar_in_a_name_ends_no_cell_of_a_markdown_table() -> None:
    counts = ImageCounts(["background", "cat|dog"], {"a": [[5, 1], [2, 3]]}, {"a": "t"})
    run = ScoredRun("a", counts, frozenset())
    sides = Side("main", [], [run]), Side("other", [], [run])
    table = as_markdown([Result(*sides, compare_runs([run], [run]))])
    assert "| cat\\|dog | 0.500 |" in table


def test_a_photo_of_16_bits_is_shown_as_it_is_read_elsewhere(tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as photo:
        shown = photo_pixels(photo, np.zeros((40, 60), np.uint8))
    assert np.array_equal(shown, read_rgb(tmp_path / "grey.png"))


def test_a_photo_whose_name_has_no_ending_is_shown(tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint8)
    for directory in ("images", "masks", "predictions"):
        (tmp_path / "data" / directory).mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(tmp_path / "data/images/photo1", format="PNG")
    write_mask(tmp_path / "data/masks/photo1.png", labels)
    write_mask(tmp_path / "data/predictions/photo1.png", labels)
    label_error = LabelError(1, 2, "photo1", "cat", "dog", "outline", 0.5, 5, 5, 20, 20, 400)
    with chdir(tmp_path):
        Repo.init(no_scm=True).close()
        assert "photo1" in label_errors_page([(label_error, Revision(WORKSPACE, None))])
