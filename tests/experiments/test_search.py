"""`cocoseg search` with a small program in the place of dvc; tests/pipeline/ has the real one."""

import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from cocoseg.core.errors import UserError
from cocoseg.experiments import search as module
from cocoseg.experiments.revisions import Revision
from cocoseg.experiments.search import Search, open_search, storage_errors
from cocoseg.experiments.search_results import commands, importances, search_page, search_text
from cocoseg.experiments.search_space import override, read_space
from cocoseg.params.reader import Params, load_params
from cocoseg.training.checkpoint import CheckpointFile
from tests import LIMIT_S, ROOT, wait_until
from tests.pages import (
    MEASURE,
    Outline,
    ask_in_browser,
    check_accessibility,
    check_print,
    needs_browser,
)
from tests.revisions import DirectoryRevision
from tests.storage_servers import postgresql_server

DVC = """\
# Scores an experiment by its learning rate: 0.01 is best.
import json, math, os, pathlib, sys, time
arguments = sys.argv[1:]
name = arguments[arguments.index("--name") + 1]
values = dict(a.split("=") for a in arguments if "=" in a)
miou = 1 - abs(math.log10(float(values["train.lr"])) + 2)
with open("dvc.log", "a") as log:
    print(name, *sorted(values.items()), file=log)
print(f"Reproducing experiment '{name}'", flush=True)
if os.path.exists("fail"):
    print("error: train: the loss became nan", flush=True)
    sys.exit(1)
parent = os.getppid()
for epoch in range(1, 9):
    print(f"epoch {epoch}/8: loss 0.500, validation mean IoU {miou * epoch / 8:.3f}", flush=True)
    endless = epoch == 4 and miou < 0.2 and int(name.split("-")[1]) > 6
    while (endless or os.path.exists("slow")) and os.getppid() == parent:
        time.sleep(0.01)
directory = pathlib.Path("runs", name, "metrics/train")
directory.mkdir(parents=True)
(directory / "metrics.json").write_text(json.dumps({"epoch": 8, "val": {"miou": miou}}))
"""
"""Takes the arguments of dvc, and writes the experiment to the directory `runs`.

From the seventh, bad trainings never end, so that a search ends only if it prunes them.
"""

SPACE = "train.lr: {low: 0.0001, high: 0.1, log: true}\ntrain.dice_weight: [0.0, 1.0]\n"


def finished_runs() -> list[Revision]:
    return [DirectoryRevision(path.name, "0", path) for path in sorted(Path("runs").glob("*"))]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with params.yaml and space.yaml, in which the small program runs as dvc."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    text = (ROOT / "presets/sample.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^  lr: .*", "  lr: 0.006", text, flags=re.MULTILINE)
    Path("params.yaml").write_text(re.sub(r"epochs: \d+", "epochs: 8", text), encoding="utf-8")
    Path("space.yaml").write_text(SPACE, encoding="utf-8")
    Path(".dvc").mkdir()
    monkeypatch.setattr(module, "_DVC", DVC)
    monkeypatch.setattr(module, "experiments", finished_runs)
    monkeypatch.setattr(module, "find_revisions", lambda name: [Revision(name, "0")])
    return tmp_path


def params() -> Params:
    return load_params(Path("params.yaml"))


def start(trials: int, **more: Any) -> Search:
    search = open_search(Path("space.yaml"), name="lr", **more)
    search.run(trials)
    return search


def states(search: Search) -> list[TrialState]:
    return [trial.state for trial in search.study.get_trials()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "space.yaml: expected parameters and the values to try"),
        ("train.lr: 0.1", "train.lr: expected {low: NUMBER, high: NUMBER}"),
        ("train.lr: [0.1]", "a list of at least two values"),
        ("train.lr: {low: 0.1, high: 0.01}", "expected numbers with low < high"),
        ("train.lr: {low: a, high: b}", "expected numbers with low < high"),
        ("train.weight_decay: {low: 0, high: 1, log: true}", "low > 0 with log: true"),
        ("train.lr: {low: -1, high: 1}", "space.yaml: train.lr: expected a number greater than 0"),
        ("train.batch_size: [4, 8.5]", "train.batch_size: expected an integer, got 8.5"),
        ("train.batch_size: {low: 1, high: 8}", "a number of at least 2, got 1"),
        ("train.lrs: [1, 2]", "train.lrs: expected a key of the section train"),
        ("train.seed: [1, 2]", "train.seed: expected a key of the section train except"),
        ("mask.overlap: [last, small]", "`cocoseg compare` compares settings of other sections"),
        ("train: {lr: [1, 2]}", "train: expected a key"),
        ("train.lr: [1, 2", "space.yaml"),
    ],
)
def test_an_invalid_space_is_one_line_before_the_first_trial(text: str, message: str) -> None:
    Path("space.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        start(1)
    assert "\n" not in str(raised.value)
    assert not Path("dvc.log").exists()


def test_a_range_has_the_type_of_its_parameter() -> None:
    text = "train.dice_weight: {low: 0, high: 1}\ntrain.batch_size: {low: 4, high: 8}\n"
    Path("space.yaml").write_text(text, encoding="utf-8")
    space = read_space(Path("space.yaml"), params())
    kinds = [type(found).__name__ for found in space.values()]
    assert kinds == ["FloatDistribution", "IntDistribution"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("null", '"null"'),
        (1e-05, "1e-05"),
        ("torchvision:coco", '"torchvision:coco"'),
        ([0.5, 2.0], "[0.5,2.0]"),
        ({"person": 2.0}, "{person:2.0}"),
    ],
)
def test_values_are_written_in_the_grammar_of_hydra(value: object, text: str) -> None:
    from dvc.utils.hydra import to_hydra_overrides

    assert override(value) == text
    (parsed,) = to_hydra_overrides([f"train.key={text}"])
    assert parsed.value() == value


def test_a_search_starts_from_the_current_values_and_finds_better_ones() -> None:
    search = start(16)
    lines = Path("dvc.log").read_text().splitlines()
    assert lines[0] == "lr-1 ('train.dice_weight', '1.0') ('train.lr', '0.006')"
    assert len(lines) == len(states(search)) == 16
    best = search.study.best_trial
    assert best.value is not None and best.value > 0.85 > search.study.trials[0].value
    assert next(iter(importances(search))) == "train.lr"
    assert TrialState.PRUNED in states(search)
    assert {run.name for run in finished_runs()} == {
        f"lr-{trial.number + 1}"
        for trial in search.study.trials
        if trial.state.is_finished() and trial.state != TrialState.PRUNED
    }

    printed = search_text(search).splitlines()
    assert printed[0].split() == ["trial", "mean", "IoU", "train.lr", "train.dice_weight"]
    assert printed[1].startswith(f"lr-{best.number + 1} ") and f"{best.value:.4f}" in printed[1]
    repeat, before, after, _run_all, compare = commands(search)
    assert re.fullmatch(
        r"dvc exp run -n lr-best -S train\.lr=\S+ -S train\.dice_weight=\S+", repeat
    )
    assert before == "dvc exp run --queue -n lr-before -S 'train.seed=1,2,3'"
    assert after.endswith("-S 'train.seed=1,2,3'") and "-S train.lr=" in after
    assert compare == "cocoseg compare 'lr-before-[0-9]*' 'lr-best-[0-9]*'"
    page = search_page(search)
    assert "Importance of the parameters" in page and "dvc exp run --run-all" in page


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_readable_on_a_phone_and_in_print(tmp_path: Path, dark: bool) -> None:
    file, page = tmp_path / "checked.html", search_page(start(4))
    assert Outline(page).headings == [1, 2, 2, 2, 2]
    check_accessibility(file, page, 390, dark=dark)
    assert ask_in_browser(file, page, MEASURE, 390)[0]["excess"] <= 0
    check_print(file, page)


def test_a_search_that_ignores_sigint_prunes_trials() -> None:
    def run() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script does for commands with &
        start(12)

    worker = multiprocessing.get_context("fork").Process(target=run)
    worker.start()
    try:
        worker.join(LIMIT_S)
        assert worker.exitcode == 0
    finally:
        worker.kill()
    assert TrialState.PRUNED in states(open_search(Path("space.yaml"), name="lr"))


def test_an_interrupted_search_has_the_same_trials_as_an_uninterrupted_one() -> None:
    whole = [trial.params for trial in start(7, random=True, storage="whole.journal").study.trials]
    shutil.rmtree("runs")
    start(3, random=True)
    continued = start(7, random=True)
    assert [trial.params for trial in continued.study.trials] == whole
    assert start(7, random=True).study.trials == continued.study.trials


def test_the_trial_of_a_killed_process_is_taken_again_and_that_of_a_running_one_is_not() -> None:
    Path("slow").touch()
    worker = multiprocessing.get_context("fork").Process(target=start, args=(3,))
    worker.start()
    try:
        wait_until(Path("dvc.log").exists)
        search = open_search(Path("space.yaml"), name="lr")
        search.take_again()
        assert states(search) == [TrialState.RUNNING]
    finally:
        worker.kill()
        worker.join()
    search.take_again()
    assert states(search) == [TrialState.FAIL, TrialState.WAITING]
    Path("slow").unlink()
    search.run(1)
    assert states(search) == [TrialState.FAIL, TrialState.COMPLETE]
    first, again = search.study.get_trials()
    assert again.params == first.params
    assert [trial.number for trial in search.counted()] == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_dvc_and_leaves_the_trial_to_the_next_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("  epoch 1/8"):
                os.kill(os.getpid(), number)

    Path("slow").touch()
    started: list[subprocess.Popen[str]] = []
    real_start: Callable[[list[str]], subprocess.Popen[str]] = module._start_dvc
    monkeypatch.setattr(
        module, "_start_dvc", lambda arguments: started.append(real_start(arguments)) or started[0]
    )
    handler = Interrupt()
    module.logger.addHandler(handler)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with caplog.at_level("INFO"), pytest.raises(SystemExit):
            start(1)
    finally:
        signal.signal(signal.SIGTERM, before)
        module.logger.removeHandler(handler)
    assert started[0].poll() is not None
    Path("slow").unlink()
    monkeypatch.setattr(module, "_start_dvc", real_start)
    assert states(start(1)) == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_pruned_trial_leaves_no_checkpoint_and_others_stay(project: Path) -> None:
    directory = project / ".dvc/tmp/checkpoints"
    pruned = [{"loss": 0.5, "val": {"miou": 0.001 * epoch}} for epoch in (1, 2)]
    for name, history in {
        "pruned": pruned,
        "other": [{"loss": 0.4, "val": {"miou": None}}],
    }.items():
        CheckpointFile(directory, name).save({"weights": torch.zeros(1), "history": history})
    module._remove_checkpoint([("0.500", "0.001")])
    assert [path.name for path in directory.iterdir()] == ["other.pt"]


def test_a_search_ends_after_three_failed_trials_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    Path("fail").touch()
    with caplog.at_level("INFO"), pytest.raises(UserError, match="3 trials in a row failed"):
        start(10)
    assert "lr-3: failed: train: the loss became nan" in caplog.messages
    assert len(Path("dvc.log").read_text().splitlines()) == 3
    Path("fail").unlink()
    search = start(4)
    assert states(search) == [TrialState.FAIL] * 3 + [TrialState.COMPLETE]
    assert "failed" in search_text(search)


def test_a_dvc_that_runs_the_experiment_of_another_is_stopped_and_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = (
        "import os, time\nif not os.path.exists('once'):\n    open('once', 'w').close()\n"
        "    print(\"Reproducing experiment 'other'\", flush=True)\n    time.sleep(600)\n"
    )
    monkeypatch.setattr(module, "_DVC", wrong + DVC)
    assert states(start(1)) == [TrialState.COMPLETE]


def test_a_search_continues_only_with_the_same_project_and_space() -> None:
    start(1)
    Path("space.yaml").write_text(SPACE.replace("0.1,", "0.2,"), encoding="utf-8")
    with pytest.raises(UserError, match="another version of the search space: restore it"):
        start(2)
    Path("space.yaml").write_text(SPACE, encoding="utf-8")
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("epochs: 8", "epochs: 9"), encoding="utf-8")
    with pytest.raises(UserError, match=r"another version of params\.yaml"):
        start(2)
    Path("params.yaml").write_text(text.replace("workers: auto", "workers: 1"), encoding="utf-8")
    start(2)


def test_a_search_does_not_continue_with_changed_code(project: Path) -> None:
    Path("stages").mkdir()
    Path("stages/train.py").write_text("first\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "stages"], [*identity, "commit", "-qm", "code"]):
        subprocess.run(["git", *arguments], check=True)
    start(1)
    Path("stages/train.py").write_text("second\n")
    with pytest.raises(UserError, match="another version of the uncommitted code"):
        start(2)
    Path("stages/train.py").write_text("first\n")
    start(2)


def test_existing_experiments_of_the_name_are_not_mixed_with_a_new_search() -> None:
    start(1)
    Path(".dvc/tmp/search/lr.journal").unlink()
    with pytest.raises(UserError, match="the experiment lr-1 exists already"):
        start(1)


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("nonsense://host/db", "--storage: "),
        ("postgresql+asdf://host/db", "--storage: "),
        ("sqlite:////nowhere/db", "--storage: "),
        ("damaged.journal", "damaged.journal is damaged or not a journal of Optuna"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line(storage: str, message: str) -> None:
    Path("damaged.journal").write_text("no\njournal\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as raised, storage_errors():
        start(1, storage=storage)
    assert "\n" not in str(raised.value)


@pytest.fixture
def postgresql() -> Iterator[str]:
    if shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL is not installed")
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "journal" else request.getfixturevalue("postgresql")


def test_processes_share_the_trials_of_a_search(storage: str | None) -> None:
    start_worker = multiprocessing.get_context("fork").Process
    workers = [start_worker(target=start, args=(8,), kwargs={"storage": storage}) for _ in "12"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT_S)
        assert worker.exitcode == 0
    search = open_search(Path("space.yaml"), name="lr", storage=storage)
    names = [line.split()[0] for line in Path("dvc.log").read_text().splitlines()]
    assert len(names) == len(set(names)) == len(search.counted())
    assert 8 <= len(names) <= 9 and TrialState.RUNNING not in states(search)
    assert len({trial.user_attrs["worker"] for trial in search.counted()}) == 2


def test_the_trial_of_a_killed_machine_is_taken_again_by_another(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HEARTBEAT_S", 1)
    monkeypatch.setattr(module, "_GRACE_S", 2)
    other = shutil.copytree(tmp_path, tmp_path / "other")  # another clone
    Path("slow").touch()
    killed = multiprocessing.get_context("fork").Process(
        target=start, args=(1,), kwargs={"storage": postgresql}
    )
    killed.start()
    try:
        wait_until(Path("dvc.log").exists)
    finally:
        killed.kill()
        killed.join()
    monkeypatch.chdir(other)
    search = open_search(Path("space.yaml"), name="lr", storage=postgresql)

    def is_given_up() -> bool:
        search.take_again()
        return states(search) == [TrialState.FAIL, TrialState.WAITING]

    wait_until(is_given_up)
    search.run(1)
    assert states(search) == [TrialState.FAIL, TrialState.COMPLETE]
    first, again = search.study.get_trials()
    assert again.params == first.params and [run.name for run in finished_runs()] == ["lr-2"]


def test_a_database_gives_up_the_trial_of_a_machine_without_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = start(1, storage="sqlite:///trials.db")
    trial = search.study.get_trials()[0]
    assert trial.state == TrialState.COMPLETE
    lost = optuna.trial.Trial(
        search.study, search.study._storage.create_new_trial(search.study._study_id)
    )
    search.study._storage.record_heartbeat(lost._trial_id)  # type: ignore[attr-defined]
    search.take_again()
    assert states(search)[-1] == TrialState.RUNNING
    monkeypatch.setattr(search.study._storage._backend, "grace_period", -1)  # type: ignore[attr-defined]
    search.take_again()
    assert states(search)[-2:] == [TrialState.FAIL, TrialState.WAITING]
    assert json.loads(Path("runs/lr-1/metrics/train/metrics.json").read_text())["epoch"] == 8


def test_a_process_continues_when_others_have_given_up_its_trial(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_score = module._validation_miou

    def score_after_the_others(experiment: Revision) -> float:
        if experiment.name == "lr-1":
            (trial,) = search.study.get_trials()
            search.study.tell(0, state=TrialState.FAIL)
            optuna.storages.RetryHeartbeatStaleTrialCallback()(search.study, trial)
        return real_score(experiment)

    monkeypatch.setattr(module, "_validation_miou", score_after_the_others)
    search = open_search(Path("space.yaml"), name="lr")
    search.run(2)
    assert states(search) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert any("no heartbeat" in message for message in caplog.messages)
