"""One attempt to fetch a file from an HTTP(S) or file:// URL: what failed, and whether to retry.

`transfer` runs the attempts; this module contains everything about servers and their errors.
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

_CHUNK = 1 << 18  # bytes
_MAX_SMALL_FILE = 1 << 28  # bytes; larger than any image, so that an endless body fills no disk


@dataclass(frozen=True)
class RetryPolicy:
    """When to retry, and when to give up. Times are in seconds.

    Attributes:
        attempts: attempts per file for a temporary error.
        attempts_damaged: attempts per file if the file arrives but is damaged.
        backoff: the wait before the second attempt; it doubles with each further attempt.
        max_wait: the longest wait, even if `Retry-After` asks for more.
        timeout: the limit to connect, and between two chunks of a response.
        min_rate: bytes per second over `timeout`; a slower transfer counts as stalled.
        give_up: the time without a success after which a series of failures ends the transfer of
            many files.
        idle_limit: the time in which at least one of many files must succeed or fail.
    """

    attempts: int = 5
    attempts_damaged: int = 3
    backoff: float = 1.0
    max_wait: float = 60.0
    timeout: float = 30.0
    min_rate: float = 1024.0
    give_up: float = 30.0
    idle_limit: float = 900.0


DEFAULT_POLICY = RetryPolicy()


class TransferError(Exception):
    """A failed attempt.

    Attributes:
        attempts: how many attempts an error of this kind deserves in total.
        wait: the seconds to wait that the server asked for, if it did.
    """

    def __init__(self, reason: str, attempts: int = 1, wait: float | None = None) -> None:
        super().__init__(reason)
        self.attempts = attempts
        self.wait = wait


def seconds_to_wait(error: TransferError, failures: int, policy: RetryPolicy) -> float:
    """Return the seconds until the next attempt, after `failures` failed ones.

    The wait is the one that the server asked for, or doubles with each failure. The jitter comes
    from the global generator, because many clients must not retry in step.
    """
    if error.wait is not None:
        return min(error.wait, policy.max_wait) + random.uniform(0, policy.backoff)
    doubled = policy.backoff * 2.0 ** (failures - 1)
    return min(doubled, policy.max_wait) * random.uniform(0.5, 1.5)


@contextmanager
def open_response(
    session: requests.Session,
    url: str,
    policy: RetryPolicy,
    headers: dict[str, str] | None = None,
    accepted: tuple[int, ...] = (200,),
) -> Iterator[requests.Response]:
    """Send a GET request.

    Args:
        session: keeps the connection open for the next request.
        url: an HTTP(S) URL.
        policy: the timeout, and the attempts for each kind of error.
        headers: further request headers.
        accepted: the status codes that are not errors.

    Yields:
        The response. Its body is unread and uncompressed.

    Raises:
        TransferError: the status is not accepted, the response is a web page, or the network fails,
            also while the block reads the body.
    """
    # A compressed body would differ from the file in its length and its ranges.
    headers = {"Accept-Encoding": "identity", **(headers or {})}
    try:
        with session.get(url, headers=headers, stream=True, timeout=policy.timeout) as response:
            status = response.status_code
            if status not in accepted:
                temporary = status in (408, 425, 429) or status >= 500
                reason = f"status {status} {http.client.responses.get(status, '')}".rstrip()
                attempts = policy.attempts if temporary else 1
                raise TransferError(reason, attempts, _retry_after(response))
            if response.headers.get("Content-Type", "").lower().startswith("text/html"):
                reason = "the server sent a web page instead of the file"
                raise TransferError(reason, policy.attempts_damaged)
            yield response
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        # ValueError: the URL, or the URL of a redirect, is invalid.
        permanent = isinstance(error, ValueError | requests.TooManyRedirects)
        raise TransferError(_reason(error, policy), 1 if permanent else policy.attempts) from None


def write_body(
    response: requests.Response,
    file: BinaryIO,
    policy: RetryPolicy,
    report: Callable[[int], object],
) -> None:
    """Write the body of a response to a file while it arrives.

    Args:
        response: from `open_response`, in whose block network errors become a TransferError.
        file: the open file.
        policy: the limits below which the transfer counts as stalled.
        report: called with the size of each chunk in bytes, after it is written.

    Raises:
        TransferError: the transfer is stalled.
    """
    since, received = time.monotonic(), 0
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        file.write(chunk)
        report(len(chunk))
        received += len(chunk)
        seconds = time.monotonic() - since
        if seconds > policy.timeout:
            if received < seconds * policy.min_rate:
                reason = f"stalled: {received} bytes in {seconds:.0f} s"
                raise TransferError(reason, policy.attempts)
            since, received = time.monotonic(), 0


def fetch_once(
    session: requests.Session,
    url: str,
    path: Path,
    policy: RetryPolicy,
    is_stopped: Callable[[], bool],
) -> None:
    """Fetch a small file in one attempt.

    Args:
        session: keeps the connection open for the next file.
        url: an HTTP(S) or file:// URL.
        path: the file to write.
        policy: the timeout, and the attempts for each kind of error.
        is_stopped: polled after each chunk; ends the attempt if it returns True.

    Raises:
        TransferError: the file cannot be fetched or is larger than 256 MiB, or the attempt was
            stopped.
    """
    if url.startswith("file:"):
        return copy_local(url, path)

    def check_progress(_: int) -> None:
        if is_stopped():
            raise TransferError("stopped")
        if file.tell() > _MAX_SMALL_FILE:
            raise TransferError(f"the file is larger than {_MAX_SMALL_FILE} bytes")

    with open_response(session, url, policy) as response, path.open("wb") as file:
        write_body(response, file, policy, check_progress)
    return None


def copy_local(url: str, path: Path) -> None:
    """Copy the file of a file:// URL to `path`.

    Raises:
        TransferError: the file cannot be read.
    """
    try:
        source = Path(url2pathname(urlsplit(url).path)).open("rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise TransferError(_reason(error, DEFAULT_POLICY)) from None
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


def _retry_after(response: requests.Response) -> float | None:
    """The header Retry-After, a number or a date, in seconds from now."""
    try:
        wait: float | None = urllib3.Retry().get_retry_after(response.raw)
    except (urllib3.exceptions.HTTPError, ValueError, OverflowError):
        return None
    return wait


def _reason(error: BaseException, policy: RetryPolicy) -> str:
    """A short description; the messages of requests and urllib3 fill half a page."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"no response within {policy.timeout:g} s"
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, http.client.IncompleteRead | urllib3.exceptions.IncompleteRead):
        return "the connection closed before the end of the file"
    return " ".join(str(error).split())[:120] or type(error).__name__
