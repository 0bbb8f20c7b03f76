"""One try at a file from an HTTP(S) or file:// address: what went wrong, and whether to try again.

`transfer` makes the tries; here is all that is known about servers and their faults.
"""

import http.client
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

_PIECE = 1 << 18  # bytes
_LARGEST_SMALL_FILE = 1 << 28  # bytes, more than any image: an endless body must not fill the disk


@dataclass(frozen=True)
class RetryPolicy:
    """How much is borne from a server. Times are in seconds."""

    tries: int = 5  # of a file, for a fault that may pass
    tries_damaged: int = 3  # of a file that came, but is not what it should be
    backoff: float = 1.0  # before the second try; doubles with each further one
    longest_wait: float = 60.0  # whatever Retry-After asks for
    timeout: float = 30.0  # to connect, and between two pieces of an answer
    lowest_rate: float = 1024.0  # bytes a second, over `timeout`; below it counts as stalled
    give_up: float = 30.0  # of nothing but failures
    standstill: float = 900.0  # in which not one of many files has come or failed


DEFAULT_POLICY = RetryPolicy()


class TransferError(Exception):
    """Why a try failed, how many tries such a fault is worth, and the wait the server asked for."""

    def __init__(self, reason: str, tries: int = 1, wait: float | None = None) -> None:
        super().__init__(reason)
        self.tries = tries
        self.wait = wait


def seconds_to_wait(fault: TransferError, failures: int, policy: RetryPolicy) -> float:
    """Seconds until the next try, after `failures` tries: what the server asked for, or doubling.

    The jitter comes from the global generator, since many clients must not wait in step.
    """
    if fault.wait is not None:
        return min(fault.wait, policy.longest_wait) + random.uniform(0, policy.backoff)
    doubling = policy.backoff * 2.0 ** (failures - 1)
    return min(doubling, policy.longest_wait) * random.uniform(0.5, 1.5)


@contextmanager
def get_answer(
    session: requests.Session,
    url: str,
    policy: RetryPolicy,
    headers: dict[str, str] | None = None,
    accepted: tuple[int, ...] = (200,),
) -> Iterator[requests.Response]:
    """Ask for `url` and yield the answer, its status one of `accepted`, its body yet to be read.

    All that goes wrong with the network raises Fault, also while the block reads the body.
    """
    # A compressed body would have another length than the file, and ranges of other bytes.
    headers = {"Accept-Encoding": "identity", **(headers or {})}
    try:
        with session.get(url, headers=headers, stream=True, timeout=policy.timeout) as answer:
            status = answer.status_code
            if status not in accepted:
                passing = status in (408, 425, 429) or status >= 500
                reason = f"status {status} {http.client.responses.get(status, '')}".rstrip()
                raise TransferError(reason, policy.tries if passing else 1, _asked_wait(answer))
            if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
                reason = "the server sent a web page instead of the file"
                raise TransferError(reason, policy.tries_damaged)
            yield answer
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        # ValueError: an address that leads nowhere, be it given or redirected to.
        lasting = isinstance(error, ValueError | requests.TooManyRedirects)
        raise TransferError(_reason(error, policy), 1 if lasting else policy.tries) from None


def receive(
    answer: requests.Response, file: BinaryIO, policy: RetryPolicy, report: Callable[[int], object]
) -> None:
    """Write the body to `file` as it comes, and `report` the size of each piece. Raises Fault."""
    since, received = time.monotonic(), 0
    while piece := answer.raw.read1(_PIECE, decode_content=False):
        file.write(piece)
        report(len(piece))
        received += len(piece)
        seconds = time.monotonic() - since
        if seconds > policy.timeout:
            if received < seconds * policy.lowest_rate:
                raise TransferError(f"stalled: {received} bytes in {seconds:.0f} s", policy.tries)
            since, received = time.monotonic(), 0


def fetch_whole(
    session: requests.Session,
    url: str,
    path: Path,
    policy: RetryPolicy,
    is_stopped: Callable[[], bool],
) -> None:
    """Write a small file to `path`, or raise Fault, also when told to stop meanwhile."""
    if url.startswith("file:"):
        return copy_local(url, path)

    def interrupt(_: int) -> None:
        if is_stopped():
            raise TransferError("stopped")
        if file.tell() > _LARGEST_SMALL_FILE:
            raise TransferError(f"more than {_LARGEST_SMALL_FILE} bytes came")

    with get_answer(session, url, policy) as answer, path.open("wb") as file:
        receive(answer, file, policy, interrupt)
    return None


def copy_local(url: str, path: Path) -> None:
    """Copy what a file:// address names. Raises Fault when it cannot be read."""
    try:
        source = Path(url2pathname(urlsplit(url).path)).open("rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise TransferError(_reason(error, DEFAULT_POLICY)) from None
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


def _asked_wait(answer: requests.Response) -> float | None:
    """The answer's Retry-After, a number or a date, in seconds from now."""
    try:
        asked: float | None = urllib3.Retry().get_retry_after(answer.raw)
    except (urllib3.exceptions.HTTPError, ValueError, OverflowError):
        return None
    return asked


def _reason(error: BaseException, policy: RetryPolicy) -> str:
    """A few words for an error about which requests and urllib3 say half a page."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"no answer within {policy.timeout:g} s"
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, http.client.IncompleteRead | urllib3.exceptions.IncompleteRead):
        return "the connection was closed in mid-file"
    return " ".join(str(error).split())[:120] or type(error).__name__
