"""`cocoseg runs`: the runs that one compares, with what was changed and how they score.

A table that `dvc exp show` gives by a page of options: name, changed parameters, mean IoU and its
95% interval over the test images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cocoseg.common.errors import UserError
from cocoseg.results.report import flatten
from cocoseg.results.revisions import Revision, experiments, find_revisions


def runs_table(names: Sequence[str]) -> str:
    """A line for HEAD and each revision that `names` stand for; without names, each experiment
    that started from the present commit. The best comes first after HEAD; changes are to HEAD."""
    (head,) = find_revisions("HEAD")
    others = [r for name in names for r in find_revisions(name)] if names else experiments()
    base = flatten(head.params())
    rows = [_row(revision, base) for revision in others]
    rows.sort(key=lambda row: -row[0])
    cells = [row[1] for row in [_row(head, base), *rows]]
    table = [["run", "mean IoU", "95% interval", "images", "changed"], *cells]
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
    except (UserError, KeyError, TypeError, ValueError):  # unfinished, or of another version
        figures, miou = ["none", "none", "none"], -1.0
    return miou, [revision.name, *figures, ", ".join(changed)]
