"""`cocoseg runs`, a table of experiments, and `cocoseg label-errors`, a ranking over revisions.

The table of `dvc exp show` requires many options to show the same: the name, the changed
parameters, the mean IoU and its 95% interval over the validation or the test images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cocoseg.core.errors import UserError
from cocoseg.core.values import flatten
from cocoseg.evaluation.label_errors import LabelError, draw_label_error
from cocoseg.experiments.compare import SPLIT_NAMES, models_tested_note, text_table
from cocoseg.experiments.revisions import Revision, Split, experiments, find_revisions
from cocoseg.reports.html import image_uri, render_page


def runs_table(names: Sequence[str], split: Split = "val") -> str:
    """Format a table of HEAD and other revisions, with their scores and changed parameters.

    Args:
        names: names or patterns as in `find_revisions`; if empty, the experiments that started
            from the current commit.
        split: the images whose scores are shown.

    Returns:
        A row for HEAD, then the others by descending mean IoU. Parameters are compared with HEAD.
    """
    (head,) = find_revisions("HEAD")
    others = [r for name in names for r in find_revisions(name)] if names else experiments()
    others = [revision for revision in others if revision.sha != head.sha]
    base = flatten(head.params())
    rows = [_row(revision, base, split) for revision in others]
    rows.sort(key=lambda row: -row[0])
    cells = [row[1] for row in [_row(head, base, split), *rows]]
    header = ["run", f"{SPLIT_NAMES[split]} mean IoU", "95% interval", "images", "changed"]
    table = text_table([header, *cells])
    return f"{table}\n\n{models_tested_note(head)}" if split == "test" else table


def _row(revision: Revision, base: Mapping[str, Any], split: Split) -> tuple[float, list[str]]:
    """The mean IoU, -1 without scores, and the cells of a row."""
    params = flatten(revision.params())
    changed = [
        f"{key}={params.get(key, 'none')}"
        for key in [*base, *(key for key in params if key not in base)]
        if params.get(key) != base.get(key)
    ]
    try:
        scores = revision.scores(split)
        interval, miou = scores["miou_interval"], scores["miou"]
        if miou is None:
            figures, miou = ["undefined", "undefined", str(scores["images"])], -1.0
        else:
            low, high = interval["low"], interval["high"]
            shown = "none" if low is None else f"{low:.3f} to {high:.3f}"
            figures = [f"{miou:.4f}", shown, str(scores["images"])]
        changed += [f"but scored with {outdated}" for outdated in revision.outdated_params()]
    except (UserError, KeyError, TypeError, ValueError):  # unfinished, or of an earlier version
        figures, miou = ["none", "none", "none"], -1.0
        if split == "val" and revision.has_only_test_scores():
            changed.append("has only test scores: use --split test")
    return miou, [revision.name, *figures, ", ".join(changed)]


RankedError = tuple[LabelError, Revision]
"""A potential label error, and the revision that tests its image."""


def rank_together(names: Sequence[str]) -> list[RankedError]:
    """Rank the potential label errors of several revisions, highest score first.

    If several revisions report an annotation, the highest score counts.

    Args:
        names: names or patterns as in `find_revisions`.
    """
    found = [
        (label_error, revision)
        for name in names
        for revision in find_revisions(name)
        for label_error in revision.label_errors()
    ]
    found.sort(key=lambda ranked: -ranked[0].score)
    first: dict[object, RankedError] = {}
    for label_error, revision in found:
        annotation = label_error.annotation_id
        box = label_error.x, label_error.y
        key = (label_error.image_id, box if annotation is None else annotation)
        first.setdefault(key, (label_error, revision))
    return list(first.values())


def label_errors_table(found: Sequence[RankedError]) -> str:
    """Format a table with a row for each potential label error."""
    header = ["score", "kind", "annotated", "predicted", "image", "annotation", "box", "revision"]
    rows = [
        [
            f"{error.score:.3f}",
            *(error.kind, _annotated(error), error.predicted, error.image),
            "" if error.annotation_id is None else str(error.annotation_id),
            f"{error.x},{error.y} {error.width}x{error.height}",
            revision.name,
        ]
        for error, revision in found
    ]
    return text_table([header, *rows])


def _annotated(error: LabelError) -> str:
    return f"{error.annotated} ({error.category})" if error.category else error.annotated


def label_errors_page(found: Sequence[RankedError]) -> str:
    """Make an HTML page that shows potential label errors."""
    return render_page(
        Path(__file__).with_name("label_errors.html.jinja"),
        title="Potential label errors",
        gallery=[(label_error, _views(label_error, revision)) for label_error, revision in found],
    )


def _views(label_error: LabelError, revision: Revision) -> dict[str, str]:
    stem = Path(label_error.image).stem
    ground_truth = revision.ground_truth(stem)
    image = revision.image(stem, ground_truth)
    views = draw_label_error(label_error, image, ground_truth, revision.prediction(stem))
    return {title: image_uri(view) for title, view in views.items()}
