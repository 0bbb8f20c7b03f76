"""Files from HTTP(S) and file:// addresses, whatever the server does on the way.

    fetch_file(url, path, md5="0a379cfc…")         # one large file; a broken one is continued
    fetch_many([Download(url, path, check)], connections=32, label="images")

Faults that may pass (refused and broken connections, stalls, short bodies, 429, 5xx) are tried
again after growing, jittered waits. A file gets its final name only when it is whole and right.
"""

import hashlib
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import requests
from tqdm import tqdm

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.sources.retry import (
    DEFAULT_POLICY,
    RetryPolicy,
    TransferError,
    copy_local,
    fetch_whole,
    get_answer,
    receive,
    seconds_to_wait,
)

logger = logging.getLogger(__name__)

_MEBIBYTE = 1 << 20
_FAILURES_IN_A_ROW = 8  # that one bad stretch of files does not explain


# --- One large file -----------------------------------------------------------------------------


def fetch_file(
    url: str, path: Path, *, md5: str | None = None, policy: RetryPolicy = DEFAULT_POLICY
) -> None:
    """Fetch one large file to `path`.

    What came before an interruption stays in `path` + `.part`, and the next call continues there,
    if the server allows it. Raises UserError when the server fails lastingly, or when the whole
    file has another MD5 than `md5`; then it is removed, so that the next call starts afresh.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    continued = part.exists()
    _complete(url, part, policy)
    if md5 is not None and continued and md5_of(part) != md5:
        logger.warning("%s: the continued file is damaged; fetching it from the start", url)
        _drop(part)
        _complete(url, part, policy)
    if md5 is not None and (found := md5_of(part)) != md5:
        _drop(part)
        raise UserError(
            f"{url}: its MD5 is {found} instead of {md5}; the file was removed: "
            "run again, or correct the expected MD5"
        )
    part.replace(path)
    _drop(part)


def md5_of(path: Path) -> str:
    """The MD5 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _complete(url: str, part: Path, policy: RetryPolicy) -> None:
    """Make `part` whole. Failures are counted anew after each further mebibyte."""
    failures = furthest = 0
    with requests.Session() as session:
        while True:
            try:
                if url.startswith("file:"):
                    copy_local(url, part)
                else:
                    _continue(session, url, part, policy)
                return
            except TransferError as fault:
                failures = 1 if _size(part) >= furthest + _MEBIBYTE else failures + 1
                furthest = max(furthest, _size(part))
                if failures >= fault.tries:
                    raise UserError(
                        f"{url}: {fault}; check the address and the network, then run again: "
                        "what has come is kept"
                    ) from None
                wait = seconds_to_wait(fault, failures, policy)
                logger.warning("%s: %s; trying again in %.0f s", url, fault, wait)
                time.sleep(wait)


def _continue(session: requests.Session, url: str, part: Path, policy: RetryPolicy) -> None:
    """Ask once for what `part` lacks, or for all where that cannot be had. Raises Fault."""
    offset = _size(part)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and _size(_version(part)):
        # The server sends the whole file if it is no longer the one that was begun.
        headers["If-Range"] = _version(part).read_text()
    accepted = (200, 206, 416) if offset else (200,)
    with get_answer(session, url, policy, headers, accepted) as answer:
        content_range = answer.headers.get("Content-Range", "")
        if answer.status_code == 416 and content_range == f"bytes */{offset}":
            return
        if answer.status_code == 200:
            offset = 0
            part.write_bytes(b"")  # before the version is noted: they must never disagree
        elif not content_range.startswith(f"bytes {offset}-"):
            _drop(part)
            raise TransferError("the file cannot be continued where it stopped", policy.tries)
        _note_version(part, answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
        length = answer.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdecimal() else None
        with (
            part.open("ab") as file,
            _progress(part.stem, "B", total, offset) as progress,
        ):
            receive(answer, file, policy, progress.update)


def _version(part: Path) -> Path:
    """The file with the ETag or date of the version that `part` belongs to."""
    return part.with_name(part.name + ".version")


def _note_version(part: Path, etag: str | None, modified: str | None) -> None:
    strong = etag and not etag.startswith("W/")  # a weak one does not promise equal bytes
    _version(part).write_text((etag if strong else modified) or "")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- Many small files ---------------------------------------------------------------------------


class Download(NamedTuple):
    """`check` is given the whole file under a temporary name, and refuses it by a ValueError."""

    url: str
    path: Path
    check: Callable[[Path], None]


Outcome = tuple[Download, Exception | None]


def fetch_many(
    downloads: Sequence[Download],
    *,
    connections: int,
    label: str,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> None:
    """Fetch many small files, `connections` at once; a killed run leaves at most `.NAME.tmp` files.

    All that can be had is fetched and kept, then one UserError counts the failures and names the
    first few. Stops early when the server is plainly gone (UserError), and at once when a file
    cannot be written (OSError).
    """
    waiting: queue.SimpleQueue[Download] = queue.SimpleQueue()
    for download in downloads:
        waiting.put(download)
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    stop = threading.Event()
    # Daemons, since a thread that waits for a stalled server must not delay the process's end.
    threads = [
        threading.Thread(target=_work, args=(waiting, outcomes, policy, stop), daemon=True)
        for _ in range(min(connections, len(downloads)))
    ]
    try:
        # The bar first: its late imports swallow a Ctrl-C (in a weakref callback of importlib).
        with _progress(label, " files", len(downloads)) as progress:
            for thread in threads:
                thread.start()
            failures = _collect(outcomes, len(downloads), progress, policy)
    finally:
        stop.set()
        deadline = time.monotonic() + 1
        for thread in filter(threading.Thread.is_alive, threads):
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
    if failures:
        raise UserError(
            f"{label}: {len(failures)} of {len(downloads)} files could not be fetched "
            f"({_first(failures)}); the others are kept: run again to fetch only what is missing"
        )


def _collect(
    outcomes: "queue.SimpleQueue[Outcome]", count: int, progress: "tqdm[Any]", policy: RetryPolicy
) -> list[str]:
    """Wait for `count` outcomes; return the lasting failures as `address: reason`."""
    failures: list[str] = []
    in_a_row, last_success = 0, time.monotonic()
    for _ in range(count):
        download, error = _next_outcome(outcomes, policy.standstill)
        if error is None:
            in_a_row, last_success = 0, time.monotonic()
            progress.update()
            continue
        if not isinstance(error, TransferError):
            raise error
        failures.append(f"{download.url}: {error}")
        progress.set_postfix_str(f"{len(failures)} failed")
        in_a_row += error.tries > 1  # a plain "not found" says nothing about the server's state
        seconds = time.monotonic() - last_success
        if in_a_row >= _FAILURES_IN_A_ROW and seconds > policy.give_up:
            raise UserError(
                f"{progress.desc}: stopped after {seconds:.0f} s of nothing but failures "
                f"({_first(failures[-in_a_row:])}); {progress.n} of {count} files came: check the "
                "server and the network, then run again to fetch the rest"
            )
    return failures


def _next_outcome(outcomes: "queue.SimpleQueue[Outcome]", standstill: float) -> Outcome:
    deadline = time.monotonic() + standstill
    while time.monotonic() < deadline:
        # Short waits: Ctrl-C in the instant before a wait is only noticed after it.
        with suppress(queue.Empty):
            return outcomes.get(timeout=0.2)
    raise UserError(
        f"nothing has come for {standstill:.0f} s; "
        "check the server and the network, then run again to fetch the rest"
    )


def _first(failures: Sequence[str]) -> str:
    return "; ".join(failures[:3]) + ("; …" if len(failures) > 3 else "")


def _work(
    waiting: "queue.SimpleQueue[Download]",
    outcomes: "queue.SimpleQueue[Outcome]",
    policy: RetryPolicy,
    stop: threading.Event,
) -> None:
    """Fetch one file after the other over one connection until none waits."""
    with requests.Session() as session:
        while not stop.is_set():
            try:
                download = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                _fetch(session, download, policy, stop)
            except Exception as error:
                outcomes.put((download, error))
            else:
                outcomes.put((download, None))


def _fetch(
    session: requests.Session, download: Download, policy: RetryPolicy, stop: threading.Event
) -> None:
    """Fetch and check one file, in as many tries as its faults are worth. Raises Fault."""
    failures = 0
    while True:
        try:
            with atomic_file(download.path) as temporary:
                fetch_whole(session, download.url, temporary, policy, stop.is_set)
                try:
                    download.check(temporary)
                except ValueError as error:
                    raise TransferError(str(error), policy.tries_damaged) from None
            return
        except TransferError as fault:
            failures += 1
            if failures >= fault.tries or stop.wait(seconds_to_wait(fault, failures, policy)):
                raise


def _progress(label: str, unit: str, total: int | None, initial: int = 0) -> "tqdm[Any]":
    """A bar on stderr; where that is no terminal but a log, a line every half minute."""
    interval = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(
        desc=label,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        initial=initial,
        mininterval=interval,
        maxinterval=interval,
    )
