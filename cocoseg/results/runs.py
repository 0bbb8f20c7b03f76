"""`cocoseg runs`, the runs that one compares, and `cocoseg suspects`, what they find in the labels.

The first is a table that `dvc exp show` gives by a page of options: name, changed parameters, mean
IoU and its 95% interval over the test images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cocoseg.common.errors import UserError
from cocoseg.results.compare import as_jpeg_uri, photo_pixels
from cocoseg.results.pages import flatten, render_page
from cocoseg.results.revisions import Revision, experiments, find_revisions
from cocoseg.scoring.suspects import Suspect, draw_suspect


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


def rank_together(names: Sequence[str]) -> list[tuple[Suspect, Revision]]:
    """The suspects of all revisions that `names` stand for, the highest score first, each with the
    revision that tests its image. Of an annotation that several suspect, the first stays."""
    found = [
        (suspect, revision)
        for name in names
        for revision in find_revisions(name)
        for suspect in revision.suspects()
    ]
    found.sort(key=lambda pair: -pair[0].score)
    first: dict[object, tuple[Suspect, Revision]] = {}
    for suspect, revision in found:
        place = suspect.annotation_id
        key = (suspect.image_id, place if place is not None else (suspect.x, suspect.y))
        first.setdefault(key, (suspect, revision))
    return list(first.values())


def suspects_table(found: Sequence[tuple[Suspect, Revision]]) -> str:
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


def suspects_page(found: Sequence[tuple[Suspect, Revision]]) -> str:
    """One page of HTML that shows the suspects."""
    return render_page(
        Path(__file__).with_name("suspects.html.jinja"),
        title="Labels to look at",
        gallery=[(suspect, _views(suspect, revision)) for suspect, revision in found],
    )


def _views(suspect: Suspect, revision: Revision) -> dict[str, str]:
    stem = Path(suspect.image).stem
    truth = revision.true_labels(stem)
    photo = photo_pixels(revision.photo(stem), truth)
    views = draw_suspect(suspect, photo, truth, revision.predicted_labels(stem))
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
