"""Transfers of files from HTTP(S) and file:// URLs that survive unreliable servers.

    fetch_file(url, path, md5="0a379cfc…")         # one large file; an interrupted one resumes
    fetch_many([Download(url, path, check)], connections=32, label="images")

Temporary errors (refused and broken connections, stalls, short bodies, statuses 429 and 5xx) are
retried after increasing, jittered waits. A file gets its final name only when it is complete and
valid.
"""

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import requests

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.core.progress import Progress
from cocoseg.sources.retry import (
    DEFAULT_POLICY,
    RetryPolicy,
    TransferError,
    copy_local,
    fetch_once,
    open_response,
    seconds_to_wait,
    write_body,
)

logger = logging.getLogger(__name__)

_MEBIBYTE = 1 << 20
_FAILURES_TO_GIVE_UP = 8  # in a row; fewer do not mean that the server is down


# --- One large file -----------------------------------------------------------------------------


def fetch_file(
    url: str, path: Path, *, md5: str | None = None, policy: RetryPolicy = DEFAULT_POLICY
) -> None:
    """Fetch one large file.

    An interrupted transfer leaves `path` + `.part`. The next call resumes it if the server supports
    ranges and still has the same version of the file.

    Args:
        url: an HTTP(S) or file:// URL.
        path: the file to write; its directory is created.
        md5: the expected MD5 of the file, in hexadecimal digits.
        policy: when to retry, and when to give up.

    Raises:
        UserError: the server fails permanently or too often, or the MD5 differs. A file with
            another MD5 is removed, so that the next call starts from the beginning.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    _complete(url, part, policy)
    if md5 is not None and resumed and md5_of(part) != md5:
        logger.warning("%s: the resumed file is damaged; fetching it from the start", url)
        _remove(part)
        _complete(url, part, policy)
    if md5 is not None and (found := md5_of(part)) != md5:
        _remove(part)
        raise UserError(
            f"{url}: expected MD5 {md5}, got {found}; the file was removed: "
            "rerun to fetch it again, or correct the expected MD5"
        )
    part.replace(path)
    _remove(part)


def md5_of(path: Path) -> str:
    """Return the MD5 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _complete(url: str, part: Path, policy: RetryPolicy) -> None:
    """Fetch the rest of `part`. Each mebibyte of progress resets the count of failures.

    Less progress does not: a server that closes each connection after a few bytes would keep the
    transfer alive for days.
    """
    failures = furthest = 0
    with requests.Session() as session:
        while True:
            try:
                if url.startswith("file:"):
                    copy_local(url, part)
                else:
                    _resume(session, url, part, policy)
                return
            except TransferError as error:
                failures = 1 if _size(part) >= furthest + _MEBIBYTE else failures + 1
                furthest = max(furthest, _size(part))
                if failures >= error.attempts:
                    raise UserError(
                        f"{url}: {error}; check the URL and the network, then rerun: "
                        "the transfer resumes where it stopped"
                    ) from None
                wait = seconds_to_wait(error, failures, policy)
                logger.warning("%s: %s; retrying in %.0f s", url, error, wait)
                time.sleep(wait)


def _resume(session: requests.Session, url: str, part: Path, policy: RetryPolicy) -> None:
    """Request once the rest of `part`, or the whole file if the server ignores the range."""
    offset = _size(part)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and _size(_version(part)):
        # The server sends the whole file if it no longer has this version.
        headers["If-Range"] = _version(part).read_text()
    accepted = (200, 206, 416) if offset else (200,)
    with open_response(session, url, policy, headers, accepted) as response:
        content_range = response.headers.get("Content-Range", "")
        if response.status_code == 416 and content_range == f"bytes */{offset}":
            return
        if response.status_code == 200:
            offset = 0
            part.write_bytes(b"")  # before the version is written, so that they never disagree
        elif not content_range.startswith(f"bytes {offset}-"):
            _remove(part)
            raise TransferError("the server sent another range than requested", policy.attempts)
        _write_version(part, response.headers.get("ETag"), response.headers.get("Last-Modified"))
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdecimal() else None
        with (
            part.open("ab") as file,
            Progress(part.stem, total, "B", done=offset) as progress,
        ):
            write_body(response, file, policy, progress.update)


def _version(part: Path) -> Path:
    """The file with the ETag or the date of the version to which `part` belongs."""
    return part.with_name(part.name + ".version")


def _write_version(part: Path, etag: str | None, modified: str | None) -> None:
    strong = etag and not etag.startswith("W/")  # a weak ETag does not promise equal bytes
    _version(part).write_text((etag if strong else modified) or "")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- Many small files ---------------------------------------------------------------------------


class Download(NamedTuple):
    """One of many small files to fetch.

    Attributes:
        url: an HTTP(S) or file:// URL.
        path: the file to write; its directory is created.
        check: receives the complete file under a temporary name and raises ValueError if the file
            is damaged.
    """

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
    """Fetch many small files over parallel connections.

    A killed process leaves at most temporary files `.NAME.tmp`.

    Args:
        downloads: the files; existing ones are replaced.
        connections: the number of parallel connections.
        label: names the files in the progress and in messages, such as "images".
        policy: when to retry, and when to give up.

    Raises:
        UserError: some files could not be fetched; the others were. The message has the number of
            failures and the first few. Or the server appears to be down, and the transfer stopped
            early.
        OSError: a file cannot be written; the transfer stops at once.
    """
    waiting: queue.SimpleQueue[Download] = queue.SimpleQueue()
    for download in downloads:
        waiting.put(download)
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    stop = threading.Event()
    # Daemons, because a thread that waits for a stalled server must not delay the end of the
    # process.
    threads = [
        threading.Thread(target=_work, args=(waiting, outcomes, policy, stop), daemon=True)
        for _ in range(min(connections, len(downloads)))
    ]
    try:
        # The bar comes first: its late imports swallow a Ctrl-C (in a weakref callback of
        # importlib).
        with Progress(label, len(downloads), "files") as progress:
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
            f"({_first(failures)}); the others are kept: rerun to fetch only the missing files"
        )


def _collect(
    outcomes: "queue.SimpleQueue[Outcome]", count: int, progress: Progress, policy: RetryPolicy
) -> list[str]:
    """Wait for `count` outcomes; return the failures as `URL: reason`."""
    failures: list[str] = []
    progress.details = lambda: f"{len(failures)} failed" if failures else ""
    in_a_row, last_success = 0, time.monotonic()
    for _ in range(count):
        download, error = _next_outcome(outcomes, policy.idle_limit)
        if error is None:
            in_a_row, last_success = 0, time.monotonic()
            progress.update()
            continue
        if not isinstance(error, TransferError):
            raise error
        failures.append(f"{download.url}: {error}")
        in_a_row += error.attempts > 1  # a missing file says nothing about the server's state
        seconds = time.monotonic() - last_success
        if in_a_row >= _FAILURES_TO_GIVE_UP and seconds > policy.give_up:
            raise UserError(
                f"{progress.label}: stopped after {seconds:.0f} s without a success "
                f"({_first(failures[-in_a_row:])}); fetched {progress.done} of {count} files: "
                "check the server and the network, then rerun to fetch the rest"
            )
    return failures


def _next_outcome(outcomes: "queue.SimpleQueue[Outcome]", idle_limit: float) -> Outcome:
    deadline = time.monotonic() + idle_limit
    while time.monotonic() < deadline:
        # Short waits: Python notices a Ctrl-C just before a wait only after the wait.
        with suppress(queue.Empty):
            return outcomes.get(timeout=0.2)
    raise UserError(
        f"no file arrived for {idle_limit:.0f} s; "
        "check the server and the network, then rerun to fetch the rest"
    )


def _first(failures: Sequence[str]) -> str:
    return "; ".join(failures[:3]) + ("; …" if len(failures) > 3 else "")


def _work(
    waiting: "queue.SimpleQueue[Download]",
    outcomes: "queue.SimpleQueue[Outcome]",
    policy: RetryPolicy,
    stop: threading.Event,
) -> None:
    """Fetch files over one connection until none is waiting."""
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
    """Fetch and check one file, in as many attempts as its errors deserve."""
    failures = 0
    while True:
        try:
            with atomic_file(download.path) as temporary:
                fetch_once(session, download.url, temporary, policy, stop.is_set)
                try:
                    download.check(temporary)
                except ValueError as error:
                    raise TransferError(str(error), policy.attempts_damaged) from None
            return
        except TransferError as error:
            failures += 1
            if failures >= error.attempts or stop.wait(seconds_to_wait(error, failures, policy)):
                raise
