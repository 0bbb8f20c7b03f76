"""Experiment tracking: log the same metrics to DVCLive and to Weights & Biases.

W&B reads its own environment variables: WANDB_MODE (offline, online or disabled; the default is
offline), WANDB_PROJECT, WANDB_API_KEY, WANDB_NAME, WANDB_RUN_ID, WANDB_DIR, WANDB_FINISH_TIMEOUT.
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

from cocoseg.core.errors import UserError
from cocoseg.core.files import curve_name, write_text
from cocoseg.core.labels import IGNORE_INDEX
from cocoseg.core.values import flatten
from cocoseg.training.listener import EpochMetrics, ValidationPrediction

logger = logging.getLogger(__name__)


class Tracker:
    """Logs a training run to DVCLive and W&B, if given; made by `track`."""

    def __init__(
        self,
        live: Live | None = None,
        run: "wandb.Run | None" = None,
        classes: Sequence[str] = (),
    ) -> None:
        self._live = live
        self._run = run
        self._incomplete = False
        self._curves: dict[str, str] = {}
        self._names = {0: "background", IGNORE_INDEX: "ignored"} | dict(enumerate(classes, start=1))

    def log_epoch(self, epoch: int, metrics: EpochMetrics, *, replayed: bool = False) -> None:
        """Add a point to each curve; see `TrainingListener`."""
        flat = _flat(metrics)
        if self._live:
            for name, value in flat.items():
                self._live.log_metric(name, value, plot=False)
                # DVCLive would append, also to the file of another process.
                header = f"step\t{name.rpartition('/')[2]}\n"
                self._curves[name] = f"{self._curves.get(name, header)}{epoch}\t{value}\n"
                path = Path(self._live.plots_dir, "metrics", f"{name}.tsv")
                write_text(path, self._curves[name])
            self._live.next_step()
        # W&B has replayed epochs already. Online, `starting_step` skips them; offline, it is 0.
        if self._run and epoch >= self._run.starting_step and not (replayed and self._run.offline):
            # If the process is killed, W&B loses uncommitted steps.
            self._send(lambda run: run.log(flat, step=epoch, commit=True))

    def log_predictions(self, epoch: int, predictions: Sequence[ValidationPrediction]) -> None:
        """Show predictions in W&B; see `TrainingListener`. `log_epoch` commits the step."""
        if self._run and epoch >= self._run.starting_step:
            # W&B requires that all images of a list have the same size.
            images = {
                f"predictions/{number}": wandb.Image(
                    found.image,
                    masks={
                        name: {"mask_data": labels, "class_labels": self._names}
                        for name, labels in (
                            ("ground_truth", found.ground_truth),
                            ("prediction", found.prediction),
                        )
                    },
                )
                for number, found in enumerate(predictions, start=1)
            }
            self._send(lambda run: run.log(images, step=epoch, commit=False))

    def log_model(self, path: Path) -> None:
        """Upload the model as an artifact, if W&B is online."""
        if self._run and not self._run.offline:
            self._send(lambda run: run.log_model(path, name="model"))

    def summarize(self, metrics: Mapping[str, Any]) -> None:
        """Replace the summary of the run, by default the metrics of its last epoch."""
        if self._live:
            self._live.summary = dict(metrics)
        self._send(lambda run: run.summary.update(_flat(metrics)))

    def finish(self, exit_code: int) -> None:
        """Wait until W&B has received everything."""
        # `with run` would print a traceback, even for a UserError.
        self._send(lambda run: run.finish(exit_code))

    def _send(self, call: "Callable[[wandb.Run], object]") -> None:
        """Call W&B; a failure is only a warning, since tracking must not stop training."""
        if self._run:
            try:
                call(self._run)
            except Exception as error:
                if not self._incomplete:
                    _warn("W&B missed part of this run", error, self._run)
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
    """Track a training run with DVCLive and W&B.

    DVCLive writes `metrics.json` and `plots/metrics/` into `directory`. W&B writes `wandb/` into
    the root of the project, since DVC's queue deletes its working directories. If the server does
    not respond or refuses the run, W&B continues offline. If the server fails later, training
    continues, and `finish` waits for the server for WANDB_FINISH_TIMEOUT seconds.

    Args:
        directory: the directory for DVCLive.
        config: the parameters of the run.
        classes: the class names in label order, without the background.
        run_id: the ID of the W&B run, which is resumed if it exists. Its name is the name of the
            DVC experiment.
        active: false in all but one of several processes; the tracker then does nothing.

    Yields:
        The tracker.

    Raises:
        UserError: a W&B variable is invalid, W&B is online without an API key, or the Git
            repository has no commit.
    """
    if not active:
        yield Tracker()
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", "300")  # by default, W&B waits forever
    os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "true")  # DVCLive's usage statistics
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
        raise UserError(f"WANDB_MODE: expected offline, online or disabled, got {mode!r}")
    try:
        try:
            if mode == "online" and not wandb.login(prompt=False):
                raise UserError(
                    "WANDB_MODE is online but W&B has no API key: set WANDB_API_KEY or run "
                    "`wandb login`"
                )
            return _init(mode, config, run_id)
        except wandb.errors.CommError as error:  # no server, or it refuses the run
            run = _init("offline", config, run_id)
            _warn("W&B is offline", error, run)
            return run
    except (wandb.Error, ValueError) as error:  # ValueError: an invalid WANDB_ variable
        raise UserError(
            f"W&B failed to start: {error}; WANDB_MODE=offline requires no server"
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
            x_transaction_log_flush_interval=1,  # seconds; a killed process loses the rest
        ),
    )


def _warn(problem: str, error: Exception, run: "wandb.Run") -> None:
    reason = shorten(str(error), 250, placeholder=" …") or type(error).__name__
    option = "" if run.offline else "--no-skip-online "
    command = f"wandb sync {option}{Path(run.dir).parent}"
    logger.warning("%s: %s; upload it later with `%s`", problem, reason, command)


def _open_live(directory: Path) -> Live:
    try:
        return Live(str(directory), save_dvc_exp=False, dvcyaml=False)
    except Exception as error:
        if not type(error).__module__.startswith("scmrepo."):  # DVCLive's Git
            raise
        raise UserError(f"Git: {error}; DVCLive requires a commit: run `git commit`") from None


def _flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Name nested metrics like `val/iou/person`, without undefined scores (None).

    DVCLive writes files with these paths, so class names become valid file names.
    """
    flat = flatten(metrics, "/", curve_name)
    return {name: value for name, value in flat.items() if value is not None}
