"""Progress: a line a minute in a log, a bar on a terminal, nothing where no log is shown."""

import io
import logging

import pytest

from cocoseg.core import progress
from cocoseg.core.progress import Progress, show_progress


class Clock:
    """A clock that changes only when a test sets `seconds`."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_a_log_gets_a_line_after_each_minute(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress("masks", 1000, clock=clock) as masks:
        for _ in range(130):
            clock.seconds += 1
            masks.update(2)
    assert log.messages == [
        "masks: 120/1000 images, 2.00 images/s, 07:20 left",
        "masks: 240/1000 images, 2.00 images/s, 06:20 left",
    ]


def test_work_of_less_than_a_minute_is_not_logged(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress("masks", 59, clock=clock) as masks:
        for _ in range(59):
            clock.seconds += 1
            masks.update()
    assert log.messages == []


def test_items_of_an_earlier_run_do_not_count_as_speed(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress("instances.zip", 250_000_000, "B", done=100_000_000, clock=clock) as transfer:
        clock.seconds += 100
        transfer.update(50_000_000)
    assert log.messages == ["instances.zip: 150M/250MB, 500kB/s, 03:20 left"]


def test_work_of_unknown_length_has_no_time_left(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress("layers", unit="layers", clock=clock) as layers:
        clock.seconds += 120
        layers.update(0)
        clock.seconds += 120
        layers.update(12)
    assert log.messages == ["layers: 0 layers", "layers: 12 layers, 0.05 layers/s"]


def test_details_are_asked_for_only_when_they_are_shown(log: pytest.LogCaptureFixture) -> None:
    """Reading a loss waits for the GPU."""
    clock, asked = Clock(), []

    def details() -> str:
        asked.append(clock.seconds)
        return "loss 0.500"

    with Progress("training", 400, clock=clock) as training:
        training.details = details
        for _ in range(100):
            clock.seconds += 1
            training.update()
    assert asked == [1060]
    assert log.messages == ["training: 60/400 images, loss 0.500, 1.00 images/s, 05:40 left"]


def test_iterating_shows_the_progress(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0)
    assert list(show_progress("ab", "letters", unit="letters")) == ["a", "b"]
    assert list(show_progress(iter("ab"), "letters", 2, "letters")) == ["a", "b"]
    counts = [message.split(" letters")[0] for message in log.messages]
    assert counts == ["letters: 1/2", "letters: 2/2"] * 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_terminal_gets_a_bar_if_it_gets_the_log(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "INTERVAL_S", 0)
    log.set_level(level)
    with Progress("masks", 2) as masks:
        masks.details = lambda: "1 failed"
        masks.update(2)
    bar = terminal.getvalue()
    assert log.messages == []
    if level == logging.INFO:
        assert "masks: 100%" in bar and "| 2/2 [" in bar and "1 failed" in bar
    else:
        assert bar == ""
