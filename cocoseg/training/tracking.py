"""Watching a training run: the same figures to DVC (through dvclive) and to Weights & Biases.

W&B is steered by its own environment variables and offline without any: WANDB_MODE (offline,
online, disabled), WANDB_PROJECT, WANDB_API_KEY, WANDB_NAME, WANDB_RUN_ID, WANDB_DIR,
WANDB_FINISH_TIMEOUT.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import wandb
from dvclive import Live
from numpy.typing import NDArray
from scmrepo.exceptions import SCMError

from cocoseg.core.errors import UserError
from cocoseg.core.files import curve_name
from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.core.values import flatten

logger = logging.getLogger(__name__)


class Tracker:
    """Passes figures on; made by `track`. Without destinations it does nothing."""

    def __init__(
        self,
        live: Live | None = None,
        run: "wandb.Run | None" = None,
        classes: Sequence[str] = (),
    ) -> None:
        self._live = live
        self._run = run
        self._incomplete = False
        self._names = {0: "background", IGNORE_INDEX: "ignored"} | dict(enumerate(classes, start=1))

    def log_epoch(self, epoch: int, figures: Mapping[str, Any], again: bool = False) -> None:
        """Add a point to each curve; nested figures become names such as `val/iou/person`.

        Epochs told `again`, after an interruption, are in W&B's run already.
        """
        flat = _flat(figures)
        if self._live:
            for name, value in flat.items():
                self._live.log_metric(name, value)
            self._live.next_step()
        # Online, W&B says which steps it has; offline, it cannot know.
        if self._run and epoch >= self._run.starting_step and not (again and self._run.offline):
            # What is not committed may be lost in a kill.
            self._tell(lambda run: run.log(flat, step=epoch, commit=True))

    def log_predictions(
        self, epoch: int, views: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]
    ) -> None:
        """Show photos (H, W, 3) with their true and predicted labels (H, W) in W&B.

        The epoch's figures come after them, and close its step.
        """
        if self._run and epoch >= self._run.starting_step:
            # A list of pictures would have to be of one size.
            pictures = {
                f"predictions/{number}": wandb.Image(
                    photo,
                    masks={
                        "ground_truth": {"mask_data": ground_truth, "class_labels": self._names},
                        "prediction": {"mask_data": labels, "class_labels": self._names},
                    },
                )
                for number, (photo, ground_truth, labels) in enumerate(views, start=1)
            }
            self._tell(lambda run: run.log(pictures, step=epoch, commit=False))

    def log_model(self, path: Path) -> None:
        """Store the model as an artifact, if W&B is online."""
        if self._run and not self._run.offline:
            self._tell(lambda run: run.log_model(path, name="model"))

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """Set the run's final figures, in place of those of the last epoch."""
        if self._live:
            self._live.summary = dict(figures)
        self._tell(lambda run: run.summary.update(_flat(figures)))

    def finish(self, exit_code: int) -> None:
        """Wait until W&B has all."""
        # `with run` would print a traceback, of a UserError as well.
        self._tell(lambda run: run.finish(exit_code))

    def _tell(self, message: "Callable[[wandb.Run], object]") -> None:
        """Tell W&B, whose failures, of any kind, must not end what it only watches."""
        if self._run:
            try:
                message(self._run)
            except Exception as error:
                if not self._incomplete:
                    _warn("W&B does not hear all of this run", error, self._run)
                self._incomplete = True


@contextmanager
def track(
    directory: Path,
    config: Mapping[str, Any],
    classes: Sequence[str],
    *,
    run_id: str,
    active: bool = True,
) -> Iterator[Tracker]:
    """Track one training run. dvclive writes `metrics.json` and `plots/metrics/` below `folder`.

    `classes` name the labels 1, 2, …. W&B's run is that of `run_id`, which goes on if it is there,
    under the name of DVC's experiment; its files lie in `wandb/` of the project, and not of a
    folder that DVC's queue removes. Not `active`, for all but one of several processes, tracks
    nothing. A server that does not answer, or refuses, makes the run an offline one, and one that
    dies later is waited for at the end, for WANDB_FINISH_TIMEOUT seconds: training goes on. Raises
    UserError when W&B is to be online and has no key, or one of its variables is wrong.
    """
    if not active:
        yield Tracker()
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", "300")  # W&B's own is forever
    os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "true")  # dvclive's usage statistics
    logging.getLogger("dvclive").setLevel(logging.WARNING)
    run = _start(dict(config), run_id)
    tracker, exit_code = Tracker(run=run), 1
    try:
        with _open_live(directory) as live:
            tracker = Tracker(live, run, classes)
            yield tracker
        exit_code = 0
    finally:
        tracker.finish(exit_code)


def _start(config: dict[str, Any], run_id: str) -> "wandb.Run":
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode not in ("offline", "online", "disabled"):
        raise UserError(f"WANDB_MODE should be offline, online or disabled (is {mode!r})")
    try:
        try:
            if mode == "online" and not wandb.login(prompt=False):
                raise UserError(
                    "WANDB_MODE is online but there is no key: set WANDB_API_KEY or run "
                    "`wandb login`"
                )
            return _init(mode, config, run_id)
        except wandb.errors.CommError as error:  # of a server that is gone, silent, or refuses
            run = _init("offline", config, run_id)
            _warn("W&B is offline", error, run)
            return run
    except (wandb.Error, ValueError) as error:  # ValueError: another of its variables is wrong
        raise UserError(
            f"W&B does not start: {error}; WANDB_MODE=offline needs no server"
        ) from None


def _init(mode: str, config: dict[str, Any], run_id: str) -> "wandb.Run":
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "cocoseg"),
        id=os.environ.get("WANDB_RUN_ID", run_id),
        name=os.environ.get("WANDB_NAME", os.environ.get("DVC_EXP_NAME")),
        resume="allow",
        dir=os.environ.get("WANDB_DIR", os.environ.get("DVC_ROOT")),
        config=config,
        settings=wandb.Settings(
            mode=mode,  # type: ignore[arg-type]
            console="off",
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=1,  # seconds; a kill loses what is not written
        ),
    )


def _warn(what: str, error: Exception, run: "wandb.Run") -> None:
    reason = shorten(str(error), 250, placeholder=" …") or type(error).__name__
    option = "" if run.offline else "--no-skip-online "
    command = f"wandb sync {option}{Path(run.dir).parent}"
    logger.warning("%s: %s; send it later with `%s`", what, reason, command)


def _open_live(directory: Path) -> Live:
    try:
        return Live(str(directory), save_dvc_exp=False, dvcyaml=False)
    except SCMError as error:
        raise UserError(f"Git: {error}; dvclive wants a repository with a commit") from None


def _flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures by names such as `val/iou/person`; undefined scores (None) are left out.

    DVCLive writes a file with that path, so class names become file names.
    """
    flat = flatten(figures, "/", curve_name)
    return {name: value for name, value in flat.items() if value is not None}
