"""`cocoseg search`: Optuna proposes training parameters, DVC runs each proposal as an experiment.

search = open_search(Path("space.yaml"), name="space", storage=None)
search.run(trials=30)

A trial runs the pipeline up to `train` in a temporary copy of the project. Its objective is the
validation mean IoU of the best epoch; test images are not scored. Several processes, also on
several machines, share the trials of a search through Optuna's storage.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec
import optuna
from optuna import Study, Trial, TrialPruned
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import (
    BaseStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from cocoseg.core.errors import UserError
from cocoseg.core.seeding import generator
from cocoseg.core.stage import shared_directory
from cocoseg.experiments.revisions import Revision, experiments, find_revisions
from cocoseg.experiments.search_space import Space, current_values, read_space, suggest
from cocoseg.params.reader import load_params
from cocoseg.params.train import TrainParams
from cocoseg.training.checkpoint import CheckpointFile

logger = logging.getLogger(__name__)

_PARAMS = Path("params.yaml")
_STARTUP_TRIALS = 5
"""Pruning starts after this many trials."""
_HEARTBEAT_S, _GRACE_S = 30, 120
"""A database gives up a trial whose process has sent no heartbeat for the second time."""
_FAILURES = 3
"""A search ends after this many failed trials in a row."""
_INTERRUPTIBLE = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A command that a script starts with & ignores SIGINT, and so would its dvc and the training."""
_DVC = """\
import sys
from cocoseg.core.parallel import exit_with_parent
from dvc.cli import main
exit_with_parent()
sys.exit(main(sys.argv[1:]))"""
"""dvc, which ends with the search if that is killed."""
_EPOCH = re.compile(r"epoch (\d+)/(\d+): loss (\S+), validation mean IoU (\S+)$")


class TrialError(Exception):
    """A trial has no result, such as a training that diverges."""


@dataclass
class Search:
    """A search, which may have trials already.

    Attributes:
        name: its name; trial N is the experiment `NAME-N`.
        space: the values to try.
        study: its trials in Optuna's storage, numbered from 0.
        params: the current parameters of the training.
        random: draw values at random instead of learning from earlier trials.
        seed: the seed of the draws.
        latest: the number of the latest trial of this process.
        directory: the directory of the journals and of the locks.
    """

    name: str
    space: Space
    study: Study
    params: TrainParams
    random: bool = False
    seed: int = 0
    latest: int = -1
    directory: Path = field(default_factory=lambda: shared_directory("search"))

    def run(self, trials: int) -> None:
        """Run trials until the search has `trials`, including those of other processes.

        An interrupted trial remains unfinished in the storage. The next process of this clone
        takes it again, and its training resumes after its last epoch.

        Raises:
            UserError: several trials in a row failed, or the project has changed.
        """
        with _held_file(self.directory, f"{self.name}.") as worker:
            while True:
                self.take_again()
                waiting = self.study.get_trials(deepcopy=False, states=[TrialState.WAITING])
                if len(self.counted()) >= trials and not waiting:
                    return
                _check_unchanged(self.study, self.space)
                try:
                    self.study.optimize(
                        lambda trial: self.objective(trial, worker, trials), 1, catch=TrialError
                    )
                except Exception:
                    if self.latest not in self.given_up():
                        raise
                    logger.warning("no heartbeat for %d s: the trial is run again", _GRACE_S)
                latest = [t.state for t in self.counted() if t.state.is_finished()][-_FAILURES:]
                if latest == [TrialState.FAIL] * _FAILURES:
                    raise UserError(f"{_FAILURES} trials in a row failed: see the errors above")

    def counted(self) -> list[FrozenTrial]:
        """The trials that are running or finished, without those that were taken again."""
        given_up = self.given_up()
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if t.state != TrialState.WAITING and t.number not in given_up]

    def given_up(self) -> set[int]:
        """The numbers of the trials that were taken again."""
        trials = self.study.get_trials(deepcopy=False)
        return {n for t in trials for n in RetryHeartbeatStaleTrialCallback.retry_history(t)}

    def take_again(self) -> None:
        """Queue the trials whose processes have ended: of this clone, and, with a database, all."""
        optuna.storages.fail_stale_trials(self.study)
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):
            worker = self.directory / trial.user_attrs.get("worker", "unknown")
            with suppress(OSError), worker.open() as file:  # no such file: on another machine
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.study.tell(trial.number, state=TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback()(self.study, trial)
                worker.unlink()

    def objective(self, trial: Trial, worker: str, trials: int) -> float:
        """Run a trial and return its validation mean IoU."""
        self.latest = trial.number
        trial.set_user_attr("worker", worker)
        # A new generator, so that neither other processes nor an interruption matter.
        self.study.sampler = _sampler(self.random, self.seed, trial.number)
        values = suggest(trial, self.space)
        name = experiment_name(self.name, trial.number)
        shown = ", ".join(f"{key}={value}" for key, value in values.items())
        logger.info("%s of %d trials: %s", name, trials, shown)
        try:
            miou = self._train(trial, name, values)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)  # for Optuna, a KeyboardInterrupt is a failed trial
        except TrialPruned:
            logger.info("%s: pruned", name)
            raise
        except TrialError as error:
            logger.info("%s: failed: %s", name, error)
            raise
        logger.info("%s: validation mean IoU %.4f", name, miou)
        return miou

    def _train(self, trial: Trial, name: str, values: dict[str, str]) -> float:
        overrides = [part for key, value in values.items() for part in ("-S", f"{key}={value}")]
        command = ["exp", "run", "--temp", "--name", name, *overrides, "train"]
        # DVC has one stack of waiting experiments: a dvc may run the one that another has added.
        for _ in range(3):
            printed, epochs, pruned = self._run_dvc(trial, name, command)
            if found := next((r for r in experiments() if r.name == name), None):
                return _validation_miou(found)
            if pruned:
                _remove_checkpoint(epochs)
                raise TrialPruned
            if any(line.startswith(f"Reproducing experiment '{name}'") for line in printed):
                break
        errors = [line for line in printed if line.lower().startswith("error: ")]
        reason = errors[0].partition(": ")[2] if errors else "".join(printed[-1:])
        raise TrialError(reason.strip() or "dvc printed no reason")

    def _run_dvc(
        self, trial: Trial, name: str, arguments: list[str]
    ) -> tuple[list[str], list[tuple[str, str]], bool]:
        """Run dvc, and report each epoch to Optuna.

        Returns:
            The lines that dvc printed; the loss and the mean IoU of each epoch, as logged; and
            whether dvc was interrupted to prune the trial.
        """
        epochs: list[tuple[str, str]] = []
        printed: list[str] = []
        with _exclusive(self.directory / "start.lock") as start:
            process = _start_dvc(arguments)
            assert process.stdout
            pruned = False
            try:
                for line in process.stdout:  # to its end, also after an interruption
                    printed.append(line)
                    if line.startswith("Reproducing experiment"):
                        start.close()
                        if f"'{name}'" not in line:
                            _interrupt(process)
                    if line.startswith(("epoch ", "training: ")):
                        logger.info("  %s", line.rstrip())
                    if epoch := _EPOCH.match(line.rstrip()):
                        number, last, loss, miou = epoch.groups()
                        epochs.append((loss, miou))
                        if miou != "undefined":
                            trial.report(float(miou), int(number))
                        if not pruned and number != last and trial.should_prune():
                            pruned = True
                            _interrupt(process)
            except BaseException:
                _interrupt(process)
                raise
            finally:
                process.communicate()  # until dvc has removed its temporary directory
        return printed, epochs, pruned


def open_search(
    path: Path, *, name: str, storage: str | None = None, random: bool = False, seed: int = 0
) -> Search:
    """Start a search, or continue the search of this name.

    Args:
        path: the file of the search space, see `read_space`.
        name: the name of the search.
        storage: a file for Optuna's journal, or the URL of a database; by default
            `.dvc/tmp/search/NAME.journal`.
        random: draw values at random.
        seed: the seed of the draws.

    Raises:
        UserError: the search space is invalid; the storage is not available; or the search was
            started with other parameters, another search space or another commit.
    """
    # Optuna logs failed trials with tracebacks, and warns of each experimental function.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if not re.fullmatch(r"[A-Za-z0-9]([\w.-]*\w)?", name) or ".." in name:
        raise UserError(f"--name: {name!r} is not a valid name: use letters, digits, - and _")
    params = load_params(_PARAMS)
    space = read_space(path, params)
    opened = _open_storage(storage or str(shared_directory("search") / f"{name}.journal"))
    warmup = params[TrainParams].epochs // 3
    pruner = optuna.pruners.MedianPruner(_STARTUP_TRIALS, n_warmup_steps=warmup)
    sampler = _sampler(random, seed, 0)
    options: Any = {"study_name": name, "storage": opened, "sampler": sampler, "pruner": pruner}
    try:
        study = optuna.create_study(**options, direction="maximize")
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(**options)
        done = len(study.get_trials(deepcopy=False))
        logger.info("continuing the search %s with %d trials", name, done)
    else:
        if existing := [
            r.name for r in experiments() if re.fullmatch(rf"{re.escape(name)}-\d+", r.name)
        ]:
            optuna.delete_study(study_name=name, storage=opened)
            raise UserError(
                f"the experiment {existing[0]} exists already: choose another --name, or remove "
                "experiments with `dvc exp remove`"
            )
        study.set_user_attr("started_with", _project_state(space))
        if values := current_values(space, params):
            study.enqueue_trial(values)
    _check_unchanged(study, space)
    return Search(name, space, study, params[TrainParams], random, seed)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise UserError in one line if a database fails."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        reason = str(cause).strip().partition("\n")[0]
        raise UserError(f"--storage: {reason}; rerun the command to continue the search") from None


def experiment_name(search: str, number: int) -> str:
    """The name of the experiment of a trial; its number counts from 0."""
    return f"{search}-{number + 1}"


def _open_storage(where: str) -> BaseStorage:
    if "://" not in where:
        path = Path(where)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return JournalStorage(JournalFileBackend(str(path)))
        except ValueError:  # also JSONDecodeError
            raise UserError(f"{path} is damaged or not a journal of Optuna") from None
    for _ in range(4):  # until no other process creates the tables at the same moment
        with suppress(IntegrityError, ProgrammingError):
            return _open_database(where)
    return _open_database(where)


def _open_database(url: str) -> RDBStorage:
    try:
        return RDBStorage(
            url,
            heartbeat_interval=_HEARTBEAT_S,
            grace_period=_GRACE_S,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )
    except ImportError as error:
        reason = error.__context__ or error  # "No module named 'psycopg2'"
        raise UserError(f"--storage: {reason}: install the driver of the database") from None


def _sampler(random: bool, seed: int, number: int) -> BaseSampler:
    drawn = int(generator(seed, "search", number).integers(1 << 32))
    return RandomSampler(drawn) if random else TPESampler(seed=drawn, multivariate=False)


def _project_state(space: Space) -> dict[str, Any]:
    """What all trials of a search must have in common, as JSON values."""
    (head,) = find_revisions("HEAD")
    params = {key: value for key, value in load_params(_PARAMS).values.items() if key != "runtime"}
    params = json.loads(json.dumps(params))  # a storage turns numbers that are keys into strings
    # Trials start from the workspace.
    changes = ["git", "diff", "--no-ext-diff", "HEAD", "--", "dvc.yaml", "cocoseg", "stages"]
    changed = subprocess.run(changes, capture_output=True, check=False).stdout
    return {
        "the commit": head.sha,
        "the uncommitted code": hashlib.sha256(changed).hexdigest(),
        "params.yaml": params,
        "the search space": {
            key: optuna.distributions.distribution_to_json(found) for key, found in space.items()
        },
    }


def _check_unchanged(study: Study, space: Space) -> None:
    current = _project_state(space)
    known = study.user_attrs.get("started_with", current)
    if different := [what for what, value in current.items() if known.get(what, value) != value]:
        raise UserError(
            f"the search {study.study_name} started with another version of "
            f"{' and '.join(different)}: restore it, or start a new search with --name"
        )


def _start_dvc(arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTIBLE + _DVC, "--wait-for-lock", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a signal to its group reaches dvc and the training
    )


def _interrupt(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def _validation_miou(experiment: Revision) -> float:
    content = msgspec.json.decode(experiment.read("metrics/train/metrics.json"))
    if content["val"]["miou"] is None:
        raise TrialError("the validation mean IoU is undefined")
    return float(content["val"]["miou"])


def _remove_checkpoint(epochs: list[tuple[str, str]]) -> None:
    """Remove the checkpoint of a training by its epochs: the loss and mean IoU that it logged."""
    directory = shared_directory("checkpoints")
    for path in directory.glob("*.pt"):
        checkpoint = CheckpointFile(directory, path.stem)
        history = (checkpoint.load() or {"history": []})["history"]
        logged = set()
        for saved in history:
            miou = saved["val"]["miou"]
            logged.add((f"{saved['loss']:.3f}", "undefined" if miou is None else f"{miou:.3f}"))
        if set(epochs) <= logged:
            checkpoint.remove()


@contextmanager
def _held_file(directory: Path, prefix: str) -> Iterator[str]:
    """Lock a new file until the block or the process ends; yield its name.

    The file stays if the block raises or the process is killed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock, path = tempfile.mkstemp(prefix=prefix, suffix=".worker", dir=directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(path).name
        Path(path).unlink()
    finally:
        os.close(lock)


@contextmanager
def _exclusive(path: Path) -> Iterator[IO[str]]:
    """Lock a file until the block ends or the yielded file is closed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
