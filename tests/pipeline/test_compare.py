"""`cocoseg compare`, `runs` and `label-errors` on real revisions, experiments and the workspace.

The command starts once for each form and kind of failure. All other tests call its functions in
this process.
"""

import json
import re
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from dvc.api import DVCFileSystem
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.evaluation.label_errors import read_label_errors
from cocoseg.experiments.compare import (
    ComparisonRecord,
    as_json,
    compare_revisions,
)
from cocoseg.experiments.revisions import Split
from cocoseg.experiments.runs import runs_table
from cocoseg.inference.confusion import count_confusion

from .conftest import Project, Variants, stages_run

pytestmark = [
    pytest.mark.xdist_group("variants"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # from dvc
]


@pytest.fixture
def varied(variants: Variants) -> Project:
    return variants.project


def state(project: Project) -> tuple[str, dict[str, str]]:
    return project.succeed("git", "status", "--short"), project.results()


def compare(
    project: Project, *names: str, split: Split | None = None, same_ground_truth: bool = False
) -> list[ComparisonRecord]:
    with chdir(project.directory):
        return as_json(compare_revisions(names, split=split, same_ground_truth=same_ground_truth))


def refusal(project: Project, *names: str) -> str:
    """The error message of a comparison."""
    with pytest.raises(UserError) as refused:
        compare(project, *names)
    return str(refused.value)


def error_of(project: Project, *command: str) -> str:
    """The single line of stderr of a command that fails."""
    result = project.run(*command)
    assert result.returncode == 1, result.stdout
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize("split", ["val", "test"])
def test_scores_equal_the_metrics_and_no_file_changes(varied: Project, split: Split) -> None:
    before = state(varied)
    options = ("--json",) if split == "val" else ("--json", "--split", "test")
    (found,) = json.loads(varied.succeed("cocoseg", "compare", "main", "seed-1", *options))
    scores = json.loads((varied.directory / f"metrics/{split}.json").read_text(encoding="utf-8"))
    assert found["split"] == split
    assert found["images"] == scores["images"]
    assert found["only_first"] == found["only_second"] == found["other_ground_truth"] == 0
    assert found["differences"][0]["first"] == pytest.approx(scores["miou"], abs=1e-6)
    by_class = {d["name"]: d["first"] for d in found["differences"][1:]}
    assert by_class.keys() == scores["iou"].keys()
    for name, iou in scores["iou"].items():
        assert by_class[name] == (None if iou is None else pytest.approx(iou, abs=1e-6))
    listed = json.loads(varied.succeed("dvc", "metrics", "diff", "--json", "main", "seed-1"))
    second = listed[f"metrics/{split}.json"]["miou"]["new"]
    assert found["differences"][0]["second"] == pytest.approx(second, abs=1e-6)
    assert state(varied) == before


def test_the_workspace_can_be_compared_and_equal_runs_are_the_same(varied: Project) -> None:
    (found,) = compare(varied, "workspace", "HEAD")
    assert found["differences"][0]["difference"] == 0
    assert {d["difference"] for d in found["differences"]} <= {0, None}
    assert found["differences"][0]["verdict"] == "the same"


def test_scores_that_predate_the_parameters_are_flagged(varied: Project) -> None:
    path = varied.directory / "params.yaml"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("  epochs: ", "  epochs: 1"), encoding="utf-8")
    try:
        with chdir(varied.directory):
            (result,) = compare_revisions(["HEAD", "workspace"])
            notes = "\n".join(result.notes())
            table = runs_table(["workspace", "HEAD"])
    finally:
        path.write_text(before, encoding="utf-8")
    epochs = next(line for line in before.splitlines() if "epochs:" in line).split()[1]
    assert f"train.epochs={epochs}" in notes
    head, workspace = table.splitlines()[1:]
    assert f"train.epochs=1{epochs}, " in workspace
    assert workspace.endswith(f" train.epochs={epochs}")
    assert head.startswith("HEAD") and "train.epochs" not in head


def test_a_pattern_selects_a_group_whose_seeds_the_interval_covers(varied: Project) -> None:
    (found,) = compare(varied, "main", "seed-*")
    assert found["second"]["revisions"].keys() == {"seed-0", "seed-1"}
    assert any("seed-* (2 runs)" in source for source in found["covered"])
    [not_covered] = found["not_covered"]
    assert "main" in not_covered


def test_other_masks_are_reported_unless_both_sides_use_the_ground_truth_of_the_first(
    varied: Project,
) -> None:
    (found,) = compare(varied, "main", "ignore")
    assert found["other_ground_truth"] > 0
    assert "WARNING" in varied.succeed("cocoseg", "compare", "main", "ignore")
    (same,) = compare(varied, "main", "ignore", same_ground_truth=True)
    assert same["other_ground_truth"] == 0
    assert same["differences"][0]["first"] == found["differences"][0]["first"]


def test_same_ground_truth_counts_all_pixels_against_the_masks_of_the_first(
    varied: Project,
) -> None:
    options = ("--same-ground-truth", "--json")
    (found,) = json.loads(varied.succeed("cocoseg", "compare", "main", "ignore", *options))
    ignored = DVCFileSystem(str(varied.directory), rev="ignore")
    total = np.zeros((6, 6), np.int64)
    for stem in (varied.directory / "data/splits/val.txt").read_text().split():
        path = f"data/predictions/{stem}.png"
        with (
            ignored.open(path) as file,
            Image.open(file) as prediction,
            Image.open(varied.directory / "data/masks" / Path(path).name) as ground_truth,
        ):
            total += count_confusion(np.asarray(ground_truth), np.asarray(prediction), 6)
    shown = [label for label in range(6) if total[label].any()]
    assert len(shown) > 1
    for label in shown:
        union = total[label].sum() + total[:, label].sum() - total[label, label]
        difference = found["differences"][1 + label]
        assert difference["second"] == pytest.approx(total[label, label] / union)


def test_a_page_shows_the_images_that_differ(varied: Project, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    varied.succeed("cocoseg", "compare", "main", "seed-1", "ignore", "--html", str(page))
    text = page.read_text(encoding="utf-8")
    for stem in (varied.directory / "data/splits/val.txt").read_text().split():
        views = re.findall(rf'<img [^>]*alt="[^"]*\b{stem}"', text)
        assert len(views) == 2 * 4  # image, ground truth and two predictions, for two comparisons
    assert "<script" not in text and text.count('class="chart"') == 2


def test_runs_lists_experiments_with_scores_and_changed_parameters(varied: Project) -> None:
    lines = varied.succeed("cocoseg", "runs").splitlines()
    rows = {line.split()[0]: line for line in lines[1:]}
    assert rows.keys() == {"HEAD", "seed-0", "seed-1", "ignore"}
    assert rows["ignore"].endswith(" mask.overlap=ignore")
    assert rows["seed-1"].endswith(" train.seed=1")
    miou = json.loads((varied.directory / "metrics/val.json").read_text(encoding="utf-8"))["miou"]
    assert f"{miou:.4f}" in rows["HEAD"]
    with chdir(varied.directory):
        assert "scored 3 models on the test images of HEAD" in runs_table([], "test")


def test_label_errors_of_several_runs_are_ranked_together_and_can_be_excluded(
    varied: Project, tmp_path: Path
) -> None:
    project = varied.copy(tmp_path / "project")
    table, page = project.directory / "all.csv", tmp_path / "page.html"
    options = ["--csv", str(table), "--html", str(page), "--first", "3"]
    printed = project.succeed("cocoseg", "label-errors", "main", "seed-*", *options).splitlines()
    label_errors = read_label_errors(table.read_text(encoding="utf-8"))
    scores = [label_error.score for label_error in label_errors]
    assert scores == sorted(scores, reverse=True)
    alone = read_label_errors(
        (project.directory / "metrics/label_errors.csv").read_text(encoding="utf-8")
    )
    assert {e.annotation_id for e in alone} <= {e.annotation_id for e in label_errors}
    ids = [e.annotation_id for e in label_errors if e.annotation_id is not None]
    assert len(ids) == len(set(ids)) >= 3
    assert len(printed) == 4 and printed[1].split()[0] == f"{scores[0]:.3f}"
    assert page.read_text(encoding="utf-8").count('src="data:image/jpeg') == 9

    rows = [row for row in table.read_text().splitlines()[1:] if row.split(",")[1]][:3]
    exclusions = project.directory / "data/exclude.csv"
    exclusions.write_text(exclusions.read_text() + "\n".join(rows) + "\n")
    assert stages_run(project.succeed("dvc", "repro", "mask")) == ["filter", "mask"]
    counts = json.loads((project.directory / "metrics/filter.json").read_text(encoding="utf-8"))
    assert counts["annotations_dropped"]["excluded"] == 3
    exclusions.write_text("nonsense\n")
    message = error_of(project, "python", "-m", "stages.filter")
    assert message.startswith("error: data/exclude.csv: line 1: expected image_id,annotation_id")


def test_missing_and_damaged_revisions_are_errors_with_a_remedy(
    varied: Project, tmp_path: Path
) -> None:
    project = varied.copy(tmp_path / "project")
    assert "`dvc exp list -A`" in error_of(project, "cocoseg", "compare", "main", "nowhere")
    assert "`dvc exp list -A`" in refusal(project, "main", "x-*")
    first = project.succeed("git", "rev-list", "--max-parents=0", "HEAD").strip()
    assert "metrics/val_images.json" in refusal(project, "main", first)
    stem = (project.directory / "data/splits/val.txt").read_text().split()[0]
    prediction = project.directory / f"data/predictions/{stem}.png"
    content = prediction.read_bytes()
    prediction.unlink()
    prediction.write_bytes(content[: len(content) // 2])
    page = ["--html", str(tmp_path / "page.html")]
    assert f"data/predictions/{prediction.name} is damaged" in error_of(
        project, "cocoseg", "compare", "main", "workspace", *page
    )
    assert not (tmp_path / "page.html").exists()


def test_files_are_read_from_the_remote_and_missing_files_are_named(
    varied: Project, tmp_path: Path
) -> None:
    project = varied.copy(tmp_path / "project")
    expected = compare(project, "main", "seed-1")
    # `dvc exp push` uses the .dvc/config of the experiment's commit. That has no remote, and dvc
    # pushes nothing without an error. The --local configuration applies to every commit.
    storage = str(tmp_path / "storage")
    project.succeed("dvc", "remote", "add", "--local", "--default", "storage", storage)
    project.succeed("git", "init", "-q", "--bare", str(tmp_path / "git"))
    project.succeed("git", "remote", "add", "origin", str(tmp_path / "git"))
    project.succeed("git", "push", "-q", "origin", "main")
    project.succeed("dvc", "push")
    project.succeed("dvc", "exp", "push", "origin", "seed-1")
    shutil.rmtree(project.directory / ".dvc/cache")
    assert compare(project, "main", "seed-1") == expected
    message = refusal(project, "main", "ignore")
    assert message.startswith("ignore: metrics/val_images.json")
    assert "`dvc exp pull origin NAME`" in message


def test_a_pull_request_comment_has_scores_parameters_and_the_comparison(
    varied: Project,
) -> None:
    comment = varied.succeed(".ci/compare", "main", "ignore")
    scores, parameters, comparison = comment.split("### ")[1:]
    for split in ("val", "test"):
        assert re.search(rf"\| metrics/{split}\.json +\| miou ", scores)
    assert "metrics/mask.json" not in scores
    assert "mask.overlap" in parameters
    assert "| mean IoU | " in comparison
