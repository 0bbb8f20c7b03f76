"""`cocoseg compare`: which of several revisions is better, as text, Markdown, JSON or a page.

results = compare_revisions(["main", "seed-*"])
print(as_text(results))
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cocoseg.core.drawing import RGBImage, overlay_labels
from cocoseg.core.errors import UserError
from cocoseg.core.images import to_rgb
from cocoseg.core.labels import IGNORE_INDEX, Labels
from cocoseg.evaluation.statistics import (
    Comparison,
    Difference,
    ImageCounts,
    ScoredRun,
    compare_runs,
)
from cocoseg.experiments.revisions import Revision, find_revisions
from cocoseg.inference.confusion import count_confusion
from cocoseg.reports.html import class_colors, jpeg_uri, render_page, scatter_chart

_PANEL_SIZE = 360  # pixels of the longest side
_FEW_IMAGES = 20


@dataclass(frozen=True)
class Side:
    """What stands on one side: a revision or, for a pattern, a group of them, and their counts."""

    name: str
    revisions: Sequence[Revision]
    runs: Sequence[ScoredRun]

    def testing(self, stem: str) -> Revision:
        """The first of the revisions that tests an image."""
        return next(
            revision
            for revision, run in zip(self.revisions, self.runs, strict=True)
            if stem in run.counts.confusions
        )


@dataclass(frozen=True)
class RevisionComparison:
    """A comparison of two sides."""

    first: Side
    second: Side
    comparison: Comparison

    @property
    def verdict(self) -> str:
        """One sentence."""
        whole = self.comparison.differences[0]
        if whole.verdict == "the same":
            return f"{self.second.name} scores exactly as {self.first.name} does."
        if whole.verdict == "cannot tell":
            return f"Cannot tell whether {self.second.name} is better than {self.first.name}."
        return f"{self.second.name} is {whole.verdict} than {self.first.name}."

    def notes(self) -> list[str]:
        """What the table is of: images, truth, and what the intervals cover."""
        found = self.comparison
        a, b = self.first.name, self.second.name
        count = len(found.images)
        notes = [f"{count} test {'images are' if count != 1 else 'image is'} shared."]
        if count < _FEW_IMAGES:
            notes.append("WARNING: so few say little, and their interval is rough.")
        for revision in [*self.first.revisions, *self.second.revisions]:
            if old := revision.scored_with():
                notes.append(
                    f"WARNING: {revision.name} was scored with {', '.join(old)}, which its "
                    "params.yaml has changed since: run `dvc repro` there and commit."
                )
        if found.only_first or found.only_second:
            counts = f"{len(found.only_first)} only in {a}, {len(found.only_second)} only in {b}"
            notes.append(f"Left out are test images of one side: {counts}.")
        if found.trained_on:
            notes.append(
                f"WARNING: on {len(found.trained_on)} of these the other side was trained."
            )
        if found.other_ground_truth:
            notes.append(
                f"WARNING: {len(found.other_ground_truth)} of the images have other true labels in {b} "
                f"(masks or annotations differ): --same-truth scores both against those of {a}."
            )
        notes.append(f"The interval (95%) covers {'; '.join(found.covered)}.")
        if any(not np.isfinite(difference.low) for difference in found.differences):
            notes.append("It is none where fewer than two of the images show the class.")
        if found.not_covered:
            notes.append(
                f"It does not cover {'; '.join(found.not_covered)}: "
                "groups of runs with several train.seed would."
            )
        return notes


def compare_revisions(
    names: Sequence[str], *, same_ground_truth: bool = False
) -> list[RevisionComparison]:
    """Compare the second and each further name with the first.

    A name is that of `find_revisions`; what it stands for makes a group. With `same_truth`, images
    whose true labels differ are counted anew against the first side's. Raises UserError as
    `find_revisions`, `Revision.read` and `compare` do.
    """
    first, *others = (_read_side(name) for name in names)
    results = []
    for second in others:
        comparison = compare_runs(first.runs, second.runs, (first.name, second.name))
        if same_ground_truth and comparison.other_ground_truth:
            recounted = [
                _recount(run, revision, first, comparison.other_ground_truth)
                for run, revision in zip(second.runs, second.revisions, strict=True)
            ]
            comparison = compare_runs(first.runs, recounted, (first.name, second.name))
        results.append(RevisionComparison(first, second, comparison))
    return results


def _read_side(name: str) -> Side:
    revisions = find_revisions(name)
    return Side(name, revisions, [revision.scored_run() for revision in revisions])


def _recount(run: ScoredRun, revision: Revision, first: Side, stems: Sequence[str]) -> ScoredRun:
    """The run with its predictions of these images counted against the first side's truth."""
    confusions, ground_truths = dict(run.counts.confusions), dict(run.counts.ground_truths)
    for stem in confusions.keys() & set(stems):
        judge = first.testing(stem)
        of_judge = first.runs[first.revisions.index(judge)].counts
        ground_truth = renumber(judge.true_labels(stem), of_judge.classes, run.counts.classes)
        prediction = revision.predicted_labels(stem)
        if ground_truth.shape != prediction.shape:
            raise UserError(
                f"{stem} has another size in {judge.name} than in {revision.name}: "
                "without --same-truth each is scored by its own labels"
            )
        confusions[stem] = count_confusion(
            ground_truth, prediction, len(run.counts.classes)
        ).tolist()
        ground_truths[stem] = of_judge.ground_truths[stem]
    return replace(run, counts=ImageCounts(run.counts.classes, confusions, ground_truths))


def renumber(labels: Labels, names: Sequence[str], wanted: Sequence[str]) -> Labels:
    """Labels (H, W) whose numbers are places in `names`, as places in `wanted`.

    Void stays void; what `wanted` does not have is background.
    """
    table = np.zeros(256, np.uint8)
    table[IGNORE_INDEX] = IGNORE_INDEX
    for label, name in enumerate(names):
        table[label] = wanted.index(name) if name in wanted else 0
    renumbered: Labels = table[labels]
    return renumbered


# --- Text, Markdown, JSON -------------------------------------------------------------------------


def as_text(results: Sequence[RevisionComparison]) -> str:
    """Tables for a terminal."""
    return "\n\n".join(
        "\n".join([result.verdict, "", *_table(_rows(result)), "", *result.notes()])
        for result in results
    )


def as_markdown(results: Sequence[RevisionComparison]) -> str:
    """Tables for a pull request."""
    parts = []
    for result in results:
        header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in _rows(result)]
        lines = [header, ["---", *["--:"] * (len(header) - 2), "---"], *rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        parts.append(f"**{result.verdict}**\n\n{table}\n\n" + "\n".join(result.notes()))
    return "\n\n".join(parts)


def as_json(results: Sequence[RevisionComparison]) -> list[dict[str, Any]]:
    """Everything that the tables and the page are made from; null where nothing is defined."""
    return [
        {
            "first": {"name": r.first.name, "revisions": _names(r.first)},
            "second": {"name": r.second.name, "revisions": _names(r.second)},
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


def _names(side: Side) -> dict[str, str | None]:
    return {revision.name: revision.sha for revision in side.revisions}


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
    interval = "none" if low == "none" else f"{low} to {high}"
    return [*scores, _number(difference.difference, "+"), interval]


def _number(value: float, sign: str) -> str:
    return "none" if np.isnan(value) else f"{value:{sign}.3f}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines; the first and the last column are text, those between are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]
        ).rstrip()
        for row in rows
    ]


# --- Page -----------------------------------------------------------------------------------------


def as_page(results: Sequence[RevisionComparison], images: int = 12) -> str:
    """One page of HTML with the tables, every image's scores, and the images that differ most."""
    return render_page(
        Path(__file__).with_name("compare.html.jinja"),
        title="Comparison with " + results[0].first.name,
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
                "pairs": [_pair(result, place) for place in _most_different(result)[:images]],
            }
            for result in results
        ],
    )


def _colors(result: RevisionComparison) -> dict[str, str]:
    """The colours of the first side's classes but the background, which pictures leave clear."""
    colors = class_colors(result.first.runs[0].counts.classes)
    return {name: color for name, color in colors.items() if name != "background"}


def _most_different(result: RevisionComparison) -> list[int]:
    """The places of the images, those first whose mean IoU differs most."""
    scores = result.comparison.image_scores
    return sorted(range(len(scores)), key=lambda i: (-abs(scores[i][1] - scores[i][0]), i))


def _pair(result: RevisionComparison, place: int) -> Mapping[str, Any]:
    """An image as the page shows it: photo, truth, and what both sides make of it."""
    stem = result.comparison.images[place]
    first, second = result.first.testing(stem), result.second.testing(stem)
    ground_truth, classes = first.true_labels(stem), _classes(result.first, first)
    pixels = photo_pixels(first.photo(stem), ground_truth)
    theirs = renumber(second.predicted_labels(stem), _classes(result.second, second), classes)
    views = [
        ("image", pixels),
        ("ground truth", overlay_labels(pixels, ground_truth)),
        (first.name, overlay_labels(pixels, first.predicted_labels(stem))),
        (second.name, overlay_labels(pixels, theirs)),
    ]
    return {
        "stem": stem,
        "scores": result.comparison.image_scores[place],
        "views": [(title, as_jpeg_uri(_panel(picture))) for title, picture in views],
    }


def _classes(side: Side, revision: Revision) -> Sequence[str]:
    return side.runs[side.revisions.index(revision)].counts.classes


def _panel(picture: RGBImage) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((_PANEL_SIZE, _PANEL_SIZE), Image.Resampling.LANCZOS)
    return image


def as_jpeg_uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=85)
    return jpeg_uri(content.getvalue())


def photo_pixels(photo: Image.Image, labels: Labels) -> RGBImage:
    """A photo as the labels (H, W) see it: turned by EXIF where only that has their size."""
    if photo.size != labels.shape[::-1]:
        photo = ImageOps.exif_transpose(photo)
    return to_rgb(photo)
