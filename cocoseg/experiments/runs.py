"""`cocoseg runs`, the runs that one compares, and `cocoseg suspects`, what they find in the labels.

The first is a table that `dvc exp show` gives by a page of options: name, changed parameters, mean
IoU and its 95% interval over the test images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cocoseg.core.errors import UserError
from cocoseg.core.values import flatten
from cocoseg.evaluation.label_errors import LabelError, draw_label_error
from cocoseg.experiments.compare import as_jpeg_uri, photo_pixels
from cocoseg.experiments.revisions import Revision, experiments, find_revisions
from cocoseg.reports.html import render_page


def runs_table(names: Sequence[str]) -> str:
    """A line for HEAD and each revision that `names` stand for; without names, each experiment
    that started from the present commit. The best comes first after HEAD; changes are to HEAD."""
    (head,) = find_revisions("HEAD")
    others = [r for name in names for r in find_revisions(name)] if names else experiments()
    others = [revision for revision in others if revision.sha != head.sha]
    base = flatten(head.params())
    rows = [_row(revision, base) for revision in others]
    rows.sort(key=lambda row: -row[0])
    cells = [row[1] for row in [_row(head, base), *rows]]
    return _as_text([["run", "mean IoU", "95% interval", "images", "changed"], *cells])


def rank_together(names: Sequence[str]) -> list[tuple[LabelError, Revision]]:
    """The suspects of all revisions that `names` stand for, the highest score first, each with the
    revision that tests its image. Of an annotation that several suspect, the first stays."""
    found = [
        (label_error, revision)
        for name in names
        for revision in find_revisions(name)
        for label_error in revision.label_errors()
    ]
    found.sort(key=lambda pair: -pair[0].score)
    first: dict[object, tuple[LabelError, Revision]] = {}
    for label_error, revision in found:
        place = label_error.annotation_id
        key = (label_error.image_id, place if place is not None else (label_error.x, label_error.y))
        first.setdefault(key, (label_error, revision))
    return list(first.values())


def label_errors_table(found: Sequence[tuple[LabelError, Revision]]) -> str:
    """A line for each suspect."""
    header = ["score", "kind", "annotated", "predicted", "image", "annotation", "box", "revision"]
    rows = [
        [
            f"{s.score:.3f}",
            *(s.kind, s.annotated, s.predicted, s.image),
            "" if s.annotation_id is None else str(s.annotation_id),
            f"{s.x},{s.y} {s.width}x{s.height}",
            revision.name,
        ]
        for s, revision in found
    ]
    return _as_text([header, *rows])


def label_errors_page(found: Sequence[tuple[LabelError, Revision]]) -> str:
    """One page of HTML that shows the suspects."""
    return render_page(
        Path(__file__).with_name("label_errors.html.jinja"),
        title="Labels to look at",
        gallery=[(label_error, _views(label_error, revision)) for label_error, revision in found],
    )


def _views(label_error: LabelError, revision: Revision) -> dict[str, str]:
    stem = Path(label_error.image).stem
    ground_truth = revision.true_labels(stem)
    photo = photo_pixels(revision.photo(stem), ground_truth)
    views = draw_label_error(label_error, photo, ground_truth, revision.predicted_labels(stem))
    return {title: as_jpeg_uri(view) for title, view in views.items()}


def _as_text(table: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)


def _row(revision: Revision, base: Mapping[str, Any]) -> tuple[float, list[str]]:
    params = flatten(revision.params())
    changed = [
        f"{key}={params.get(key, 'none')}"
        for key in [*base, *(key for key in params if key not in base)]
        if params.get(key) != base.get(key)
    ]
    try:
        scores = revision.scores()
        interval = scores["miou_interval"]
        figures = [
            f"{scores['miou']:.4f}",
            f"{interval['low']:.3f} to {interval['high']:.3f}",
            str(scores["images"]),
        ]
        miou = float(scores["miou"])
        changed += [f"but SCORED WITH {old}" for old in revision.scored_with()]
    except (UserError, KeyError, TypeError, ValueError):  # unfinished, or of another version
        figures, miou = ["none", "none", "none"], -1.0
    return miou, [revision.name, *figures, ", ".join(changed)]
