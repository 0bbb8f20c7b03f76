"""`cocoseg compare`: compare revisions; the results as text, Markdown, JSON or a page.

results = compare_revisions(["main", "seed-*"])
print(as_text(results))
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image

from cocoseg.core.drawing import RGBImage, overlay_labels
from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX, Labels
from cocoseg.evaluation.statistics import (
    Comparison,
    Difference,
    ImageCounts,
    ScoredRun,
    compare_runs,
)
from cocoseg.experiments.revisions import Revision, Split, find_revisions
from cocoseg.inference.confusion import count_confusion
from cocoseg.reports.html import class_colors, image_uri, render_page, scatter_chart

_PANEL_SIZE = 360  # pixels of the longest side
_FEW_IMAGES = 20

SPLIT_NAMES: dict[Split, str] = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Side:
    """A side of a comparison: a revision, or the group of revisions that match a pattern.

    Attributes:
        name: the name or the pattern that the user gave.
        revisions: the revisions.
        runs: the counts of each revision on its images of the split.
    """

    name: str
    revisions: Sequence[Revision]
    runs: Sequence[ScoredRun]

    def scored_by(self, stem: str) -> tuple[Revision, ScoredRun]:
        """The first revision that scored this image, and its run."""
        return next(
            (revision, run)
            for revision, run in zip(self.revisions, self.runs, strict=True)
            if stem in run.counts.confusions
        )


@dataclass(frozen=True)
class RevisionComparison:
    """The result of comparing a side with the first side.

    Attributes:
        first: the reference.
        second: the side that is better or worse than `first`.
        comparison: scores, differences and intervals.
        split: the images that both sides are compared on.
    """

    first: Side
    second: Side
    comparison: Comparison
    split: Split

    @property
    def verdict(self) -> str:
        """The result for the mean IoU as a sentence."""
        a, b = self.first.name, self.second.name
        verdict = self.comparison.differences[0].verdict
        if verdict == "the same":
            return f"{a} and {b} have the same scores."
        if verdict == "cannot tell":
            return f"Cannot tell whether {b} is better than {a}."
        return f"{b} is {verdict} than {a}."

    def notes(self) -> list[str]:
        """Sentences about the images, the ground truth and the intervals; warnings are marked."""
        found = self.comparison
        a, b = self.first.name, self.second.name
        count = len(found.images)
        images = f"{SPLIT_NAMES[self.split]} {'images' if count != 1 else 'image'}"
        notes = [f"Both sides have {count} {images} in common."]
        if any(r.is_fold() for r in [*self.first.revisions, *self.second.revisions]):
            notes.append("Folds are compared on test images: together, they test each image once.")
        elif self.split == "test":
            notes.append(models_tested_note(self.first.revisions[0]))
        if count < _FEW_IMAGES:
            notes.append(
                f"WARNING: with fewer than {_FEW_IMAGES} images, the intervals are unreliable."
            )
        for revision in [*self.first.revisions, *self.second.revisions]:
            if outdated := revision.outdated_params():
                notes.append(
                    f"WARNING: {revision.name} was scored with {', '.join(outdated)}, but its "
                    "params.yaml has other values: run `dvc repro` there and commit."
                )
        if found.only_first or found.only_second:
            notes.append(
                f"Images of one side are excluded: {len(found.only_first)} of {a}, "
                f"{len(found.only_second)} of {b}."
            )
        if found.trained_on:
            notes.append(
                f"WARNING: the other side was trained on {len(found.trained_on)} of these."
            )
        if differing := len(found.other_ground_truth):
            notes.append(
                f"WARNING: the ground truth in {b} differs for {differing} of {count} images "
                f"(other masks or annotations): use --same-ground-truth to score {b} against the "
                f"ground truth of {a}."
            )
        mean, *classes = found.differences
        for side, score in ((a, mean.first), (b, mean.second)):
            if np.isnan(score):
                notes.append(
                    f"The mean IoU of {side} is undefined: no mask of these images shows a class."
                )
        if undefined := [d.name for d in classes if np.isnan(d.first) or np.isnan(d.second)]:
            notes.append(
                f"The IoU of {', '.join(undefined)} is undefined where neither masks nor "
                "predictions show the class."
            )
        notes.append(f"The 95% interval covers {'; '.join(found.covered)}.")
        if any(not np.isfinite(difference.low) for difference in found.differences):
            notes.append(
                "It is none if fewer than two images show the class, and for the mean IoU if that "
                "applies to more than a quarter of the classes."
            )
        if found.not_covered:
            notes.append(
                f"It does not cover {'; '.join(found.not_covered)}: "
                "compare groups of runs with several values of train.seed."
            )
        return notes


def models_tested_note(revision: Revision) -> str:
    """A sentence with the number of models that were scored on the test images of a revision."""
    count = revision.models_tested()
    note = (
        f"The commits and experiments of this clone scored {count} "
        f"{'model' if count == 1 else 'models'} on the test images of {revision.name}"
    )
    if count < 2:
        return f"{note}."
    return f"{note}; if you choose one by its test score, this score is too high."


def compare_revisions(
    names: Sequence[str], *, split: Split | None = None, same_ground_truth: bool = False
) -> list[RevisionComparison]:
    """Compare the second and each further name with the first.

    Args:
        names: names or patterns as in `find_revisions`; a pattern selects a group of revisions.
        split: the images to compare on; by default `test` for folds, otherwise `val`.
        same_ground_truth: score images whose ground truth differs against the ground truth of the
            first name.

    Raises:
        UserError: a revision or a file is missing or damaged, the revisions have no image or no
            class in common, or `split` is `val` for folds.
    """
    found = {name: find_revisions(name) for name in names}
    if any(revision.is_fold() for revisions in found.values() for revision in revisions):
        if split == "val":
            raise UserError("folds (split.fold) are compared on test images: omit --split val")
        split = "test"
    split = split or "val"
    first, *others = (_read_side(name, found[name], split) for name in names)
    results = []
    for second in others:
        comparison = compare_runs(first.runs, second.runs, (first.name, second.name))
        if same_ground_truth and comparison.other_ground_truth:
            recounted = [
                _recount(run, revision, first, comparison.other_ground_truth)
                for run, revision in zip(second.runs, second.revisions, strict=True)
            ]
            comparison = compare_runs(first.runs, recounted, (first.name, second.name))
        results.append(RevisionComparison(first, second, comparison, split))
    return results


def _read_side(name: str, revisions: Sequence[Revision], split: Split) -> Side:
    return Side(name, revisions, [revision.scored_run(split) for revision in revisions])


def _recount(run: ScoredRun, revision: Revision, first: Side, stems: Sequence[str]) -> ScoredRun:
    """Count the predictions of a run on some images against the ground truth of the first side."""
    confusions, ground_truths = dict(run.counts.confusions), dict(run.counts.ground_truths)
    for stem in confusions.keys() & set(stems):
        reference, reference_run = first.scored_by(stem)
        ground_truth = renumber(
            reference.ground_truth(stem), reference_run.counts.classes, run.counts.classes
        )
        prediction = revision.prediction(stem)
        if ground_truth.shape != prediction.shape:
            raise UserError(
                f"{stem} has another size in {reference.name} than in {revision.name}: "
                "compare them without --same-ground-truth"
            )
        confusion = count_confusion(ground_truth, prediction, len(run.counts.classes))
        confusions[stem] = confusion.tolist()
        ground_truths[stem] = reference_run.counts.ground_truths[stem]
    return replace(run, counts=ImageCounts(run.counts.classes, confusions, ground_truths))


def renumber(labels: Labels, names: Sequence[str], new_names: Sequence[str]) -> Labels:
    """Translate labels from one list of classes to another.

    Args:
        labels: uint8 (H, W).
        names: the class names of `labels`, in label order.
        new_names: the class names of the result.

    Returns:
        New labels, uint8 (H, W). Ignored pixels stay ignored; classes that `new_names` does not
        have become background.
    """
    table = np.zeros(256, np.uint8)
    table[IGNORE_INDEX] = IGNORE_INDEX
    for label, name in enumerate(names):
        table[label] = new_names.index(name) if name in new_names else 0
    renumbered: Labels = table[labels]
    return renumbered


# --- Text, Markdown, JSON -------------------------------------------------------------------------


def as_text(results: Sequence[RevisionComparison]) -> str:
    """Format the results as tables for a terminal."""
    return "\n\n".join(
        f"{result.verdict}\n\n{text_table(_rows(result), numeric=range(1, 5))}\n\n"
        + "\n".join(result.notes())
        for result in results
    )


def as_markdown(results: Sequence[RevisionComparison]) -> str:
    """Format the results as Markdown, for a pull request."""
    parts = []
    for result in results:
        header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in _rows(result)]
        lines = [header, ["---", *["--:"] * (len(header) - 2), "---"], *rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        parts.append(f"**{result.verdict}**\n\n{table}\n\n" + "\n".join(result.notes()))
    return "\n\n".join(parts)


class SideRecord(TypedDict):
    """A side in JSON; `revisions` has the commit of each revision, None for the workspace."""

    name: str
    revisions: dict[str, str | None]


class ComparisonRecord(TypedDict):
    """A comparison in JSON.

    `differences` are the fields of `Difference` and its verdict. Undefined numbers are None.
    """

    first: SideRecord
    second: SideRecord
    split: Split
    differences: list[dict[str, str | float | None]]
    images: int
    only_first: int
    only_second: int
    trained_on: int
    other_ground_truth: int
    covered: list[str]
    not_covered: list[str]


def as_json(results: Sequence[RevisionComparison]) -> list[ComparisonRecord]:
    """Convert the results to values for JSON."""
    return [
        {
            "first": _side_record(r.first),
            "second": _side_record(r.second),
            "split": r.split,
            "differences": [
                {**{key: _defined(v) for key, v in asdict(d).items()}, "verdict": d.verdict}
                for d in r.comparison.differences
            ],
            "images": len(r.comparison.images),
            "only_first": len(r.comparison.only_first),
            "only_second": len(r.comparison.only_second),
            "trained_on": len(r.comparison.trained_on),
            "other_ground_truth": len(r.comparison.other_ground_truth),
            "covered": r.comparison.covered,
            "not_covered": r.comparison.not_covered,
        }
        for r in results
    ]


def _side_record(side: Side) -> SideRecord:
    revisions = {revision.name: revision.sha for revision in side.revisions}
    return {"name": side.name, "revisions": revisions}


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value


def _rows(result: RevisionComparison) -> list[list[str]]:
    header = ["", result.first.name, result.second.name, "difference", "95% interval"]
    rows = [[*header, f"{result.second.name} is"]]
    for difference in result.comparison.differences:
        rows.append([difference.name, *_cells(difference), difference.verdict])
    return rows


def _cells(difference: Difference) -> list[str]:
    scores = [_number(value, "") for value in (difference.first, difference.second)]
    low, high = (_number(value, "+") for value in (difference.low, difference.high))
    interval = "none" if np.isnan(difference.low) else f"{low} to {high}"
    return [*scores, _number(difference.difference, "+"), interval]


def _number(value: float, sign: str) -> str:
    return "undefined" if np.isnan(value) else f"{value:{sign}.3f}"


def text_table(rows: Sequence[Sequence[str]], numeric: Collection[int] = ()) -> str:
    """Format rows as text with aligned columns; the `numeric` columns are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index in numeric else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


# --- Page -----------------------------------------------------------------------------------------


def as_page(results: Sequence[RevisionComparison], images: int = 12) -> str:
    """Make an HTML page.

    Args:
        results: comparisons with the same first side.
        images: the number of images to show, those whose mean IoU differs most first.
    """
    return render_page(
        Path(__file__).with_name("compare.html.jinja"),
        title="Comparison with " + results[0].first.name,
        split=SPLIT_NAMES[results[0].split],
        results=[
            {
                "result": result,
                "rows": _rows(result),
                "chart": scatter_chart(
                    result.comparison.image_scores,
                    x_label=f"mean IoU of an image, {result.first.name}",
                    y_label=result.second.name,
                ),
                "colors": _colors(result),
                "images": [_views(result, index) for index in _most_different(result)[:images]],
            }
            for result in results
        ],
    )


def _colors(result: RevisionComparison) -> dict[str, str]:
    """The colors of the classes of the first side; masks do not color the background."""
    colors = class_colors(result.first.runs[0].counts.classes)
    return {name: color for name, color in colors.items() if name != "background"}


def _most_different(result: RevisionComparison) -> list[int]:
    """The indices of the images by descending difference of their mean IoU."""
    scores = result.comparison.image_scores
    return sorted(range(len(scores)), key=lambda i: (-abs(scores[i][1] - scores[i][0]), i))


class _Views(TypedDict):
    """An image on the page; the views are pairs of a title and a data URI."""

    stem: str
    scores: tuple[float, float]
    views: list[tuple[str, str]]


def _views(result: RevisionComparison, index: int) -> _Views:
    """Draw an image, its ground truth and both predictions, in the classes of the first side."""
    stem = result.comparison.images[index]
    first, first_run = result.first.scored_by(stem)
    second, second_run = result.second.scored_by(stem)
    classes = first_run.counts.classes
    ground_truth = first.ground_truth(stem)
    image = first.image(stem, ground_truth)
    prediction = renumber(second.prediction(stem), second_run.counts.classes, classes)
    views = [
        ("image", image),
        ("ground truth", overlay_labels(image, ground_truth)),
        (first.name, overlay_labels(image, first.prediction(stem))),
        (second.name, overlay_labels(image, prediction)),
    ]
    return {
        "stem": stem,
        "scores": result.comparison.image_scores[index],
        "views": [(title, _panel(pixels)) for title, pixels in views],
    }


def _panel(pixels: RGBImage) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((_PANEL_SIZE, _PANEL_SIZE), Image.Resampling.LANCZOS)
    return image_uri(image)
