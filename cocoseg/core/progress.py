"""Progress of long work: a bar on a terminal, one line a minute in a log.

    for mask in show_progress(masks, "masks"): …

Shown where messages of level INFO are: neither in library code that somebody else calls, nor in the
other processes of a distributed training.
"""

import logging
import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

from tqdm import tqdm

_ItemT = TypeVar("_ItemT")

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""The time between two lines in a log."""


class Progress:
    """The progress of one piece of work; a context manager.

    Attributes:
        label: names the work, such as "masks".
        done: the number of finished items.
        details: returns a text to show behind the numbers. It is called only if the text is shown,
            in a log once a minute and on a terminal once a second, and may therefore be slow.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        unit: str = "images",
        *,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start to measure the time.

        Args:
            label: see above.
            total: the number of items, or None if it is unknown.
            unit: what the items are, in plural; "B" for bytes.
            done: the number of items that an earlier run finished.
            clock: returns the time in seconds.
        """
        self.label = label
        self.done = done
        self.details: Callable[[], str] = str
        self._total, self._unit, self._first = total, unit, done
        self._shown = logger.isEnabledFor(logging.INFO)
        terminal = self._shown and sys.stderr.isatty()
        self._bar: tqdm[Any] = tqdm(
            desc=label,
            total=total,
            unit=unit if unit == "B" else f" {unit}",
            unit_scale=unit == "B",
            initial=done,
            leave=None,  # the bar of an inner loop disappears
            disable=not terminal,
        )
        self._clock, self._interval = clock, 1.0 if terminal else INTERVAL_S
        self._started = clock()
        self._due = self._started if terminal else self._started + self._interval

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, count: int = 1) -> None:
        """Add finished items; show the progress if it is due."""
        self.done += count
        now = self._clock()
        due = self._shown and now >= self._due
        if due:
            self._due = now + self._interval
            if self._bar.disable:
                logger.info("%s", self._line(now - self._started))
            else:
                self._bar.set_postfix_str(self.details(), refresh=False)
        self._bar.update(count)

    def clear(self) -> None:
        """Remove the bar from the terminal before a message; the next update draws it again."""
        self._bar.clear()

    def _line(self, seconds: float) -> str:
        """A line such as `masks: 120/8000 images, 40.0 images/s, 03:17 left`."""
        number = tqdm.format_sizeof if self._unit == "B" else str
        counts = "/".join(number(n) for n in (self.done, self._total) if n is not None)
        unit = "B" if self._unit == "B" else f" {self._unit}"
        parts = [f"{self.label}: {counts}{unit}", self.details()]
        if seconds > 0 and (rate := (self.done - self._first) / seconds):
            parts.append(f"{tqdm.format_sizeof(rate)}{unit}/s")
            if self._total is not None:
                parts.append(f"{tqdm.format_interval((self._total - self.done) / rate)} left")
        return ", ".join(filter(None, parts))


def show_progress(
    items: Iterable[_ItemT], label: str, total: int | None = None, unit: str = "images"
) -> Iterator[_ItemT]:
    """Iterate, and show the progress.

    Args:
        items: the items; each is finished when the next one is requested.
        label: names the work, such as "masks".
        total: the number of items; by default the length of `items`, if it has one.
        unit: what the items are, in plural.
    """
    with Progress(label, total or operator.length_hint(items) or None, unit) as progress:
        for item in items:
            yield item
            progress.update()
