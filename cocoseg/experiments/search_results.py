"""The results of `cocoseg search`: trials, importance of the parameters, the next commands."""

import shlex
from pathlib import Path

from optuna.importance import get_param_importances
from optuna.trial import TrialState

from cocoseg.experiments.compare import text_table
from cocoseg.experiments.search import Search, experiment_name
from cocoseg.experiments.search_space import as_texts
from cocoseg.reports.html import line_chart, render_page

_SEEDS = 3
"""The number of new seeds that confirm a result."""


def trial_rows(search: Search) -> list[list[str]]:
    """A header and a row for each trial: finished ones by descending mean IoU, then the others."""
    trials = search.counted()
    trials.sort(key=lambda t: -(t.value or 0.0) if t.state == TrialState.COMPLETE else t.number + 1)
    rows = [
        [
            experiment_name(search.name, trial.number),
            f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE else _STATES[trial.state],
            *as_texts(trial.params, search.space).values(),
        ]
        for trial in trials
        if trial.params
    ]
    return [["trial", "mean IoU", *search.space], *rows]


_STATES = {
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def importances(search: Search) -> dict[str, float]:
    """The fraction of each parameter in the differences, highest first; empty with few trials.

    The method is PED-ANOVA (Watanabe et al., 2023).
    """
    values = {
        t.value for t in search.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    }
    return get_param_importances(search.study) if len(values) > 2 else {}


def commands(search: Search) -> list[str]:
    """The command that repeats the best trial, and those that confirm it on new seeds."""
    best = as_texts(search.study.best_params, search.space)
    options = " ".join(f"-S {shlex.quote(f'{key}={value}')}" for key, value in best.items())
    seeds = ",".join(str(search.params.seed + number) for number in range(1, _SEEDS + 1))
    before, after = f"{search.name}-before", f"{search.name}-best"
    return [
        f"dvc exp run -n {after} {options}",
        f"dvc exp run --queue -n {before} -S 'train.seed={seeds}'",
        f"dvc exp run --queue -n {after} {options} -S 'train.seed={seeds}'",
        "dvc exp run --run-all",
        f"cocoseg compare '{before}-[0-9]*' '{after}-[0-9]*'",
    ]


def search_text(search: Search) -> str:
    """Format the results as text."""
    rows = trial_rows(search)
    parts = [text_table(rows, {1})]
    if running := sum(row[1] == "running" for row in rows):
        parts.append(
            f"Unfinished: {running} trials. Other processes run them; if one of them has stopped, "
            "rerun the command on its machine."
        )
    if found := importances(search):
        bars = [[key, f"{value:.0%}", "#" * round(30 * value)] for key, value in found.items()]
        parts.append("Importance\n" + text_table(bars, {1}))
    if any(t.state == TrialState.COMPLETE for t in search.counted()):
        repeat, *confirm = commands(search)
        name = experiment_name(search.name, search.study.best_trial.number)
        parts.append(f"Best: {name}. To run all stages with its values:\n  {repeat}")
        parts.append(
            "The best of many trials is partly luck. To compare it with the current parameters on "
            f"{_SEEDS} new seeds:\n  " + "\n  ".join(confirm)
        )
    return "\n\n".join(parts)


def search_page(search: Search) -> str:
    """Make an HTML page of the results."""
    points = [
        (float(t.number + 1), t.value)
        for t in search.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if t.value is not None
    ]
    series = {
        "trial": points,
        "best so far": [(x, max(y for z, y in points if z <= x)) for x, _ in points],
    }
    chart = line_chart(
        series,
        {"trial": "#b9c4d0", "best so far": "#1f5fa8"},
        x_label="trial",
        y_label="validation mean IoU",
        whole_x=True,
        dots=True,
    )
    return render_page(
        Path(__file__).with_name("search.html.jinja"),
        title=f"Search {search.name}",
        rows=trial_rows(search),
        importances=importances(search),
        commands=commands(search) if points else [],
        chart=chart if points else None,
    )
