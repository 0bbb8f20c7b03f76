"""Transfers from a server that misbehaves, killed transfers, and transfers to a full disk."""

import errno
import itertools
import logging
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cocoseg.core.errors import UserError
from cocoseg.sources.retry import RetryPolicy, TransferError, seconds_to_wait
from cocoseg.sources.transfer import Download, fetch_file, fetch_many, md5_of
from tests import misbehaving_server as misbehave
from tests import wait_until
from tests.misbehaving_server import Fault, MisbehavingServer
from tests.processes import end_by_signal, start_program, wait_for_end

QUICK = RetryPolicy(attempts=4, attempts_damaged=2, backoff=0.002, max_wait=0.05, give_up=0.1)
SHORT = replace(QUICK, timeout=0.5)
"""For servers that stall, where each attempt takes this long."""
WORDS = [b"the whole file number %d\n" % number * 50 for number in range(12)]

TEMPORARY_FAULTS = [
    misbehave.reset_before_response,
    misbehave.not_http,
    misbehave.reset_in_mid_body,
    misbehave.stall_before_response,
    misbehave.stall_in_mid_body,
    misbehave.trickle,
    misbehave.trickle_after_half,
    misbehave.short_body,
    misbehave.short_chunked_body,
    misbehave.length_too_small,
    misbehave.length_too_large,
    misbehave.web_page,
    misbehave.web_page_without_type,
    misbehave.status(429),
    misbehave.status(429, Retry_After="0"),
    misbehave.status(503),
    misbehave.status(503, Retry_After="1"),
    misbehave.status(503, Retry_After="Thu, 01 Jan 2099 00:00:00 GMT"),
    misbehave.status(503, Retry_After="soon"),
    misbehave.status(500),
    misbehave.status(408),
    misbehave.status(425),
]

STALLS = [
    misbehave.stall_before_response,
    misbehave.stall_in_mid_body,
    misbehave.trickle,
    misbehave.trickle_after_half,
]


def policy_for(fault: Fault) -> RetryPolicy:
    return SHORT if fault in STALLS else QUICK


def name_of(fault: Fault) -> str:
    return fault.__qualname__


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    files = {f"/{number}.txt": content for number, content in enumerate(WORDS)}
    with MisbehavingServer(files) as running:
        yield running


def check_words(path: Path) -> None:
    if path.read_bytes() not in WORDS:
        raise ValueError("is not a file of words")


def downloads_of(server_url: str, directory: Path, count: int = len(WORDS)) -> list[Download]:
    names = [f"{number}.txt" for number in range(count)]
    return [Download(f"{server_url}/{name}", directory / name, check_words) for name in names]


def words_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def all_words(count: int = len(WORDS)) -> dict[str, bytes]:
    return {f"{number}.txt": content for number, content in enumerate(WORDS[:count])}


# --- Many small files ---------------------------------------------------------------------------


def test_many_files_are_fetched_over_few_connections(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    fetch_many(downloads_of(server.url, tmp_path), connections=3, label="files", policy=QUICK)
    assert words_in(tmp_path) == all_words()
    assert set(server.request_counts().values()) == {1}
    assert server.connections == 3


@pytest.mark.parametrize("fault", TEMPORARY_FAULTS, ids=name_of)
def test_a_file_is_fetched_again_after_a_temporary_fault(
    server: MisbehavingServer, tmp_path: Path, fault: Fault
) -> None:
    server.faults["/3.txt"] = iter([fault])
    policy = policy_for(fault)
    fetch_many(downloads_of(server.url, tmp_path), connections=2, label="files", policy=policy)
    assert words_in(tmp_path) == all_words()
    assert server.request_counts()["/3.txt"] == 2


@pytest.mark.parametrize(
    ("fault", "requests", "reason"),
    [
        (misbehave.status(404), 1, "status 404 Not Found"),
        (misbehave.status(403), 1, "status 403 Forbidden"),
        (misbehave.status(204), 1, "status 204 No Content"),
        (misbehave.status(799), 4, "status 799"),
        (misbehave.status(503), 4, "status 503 Service Unavailable"),
        (misbehave.web_page, 2, "the server sent a web page instead of the file"),
        (misbehave.serve_instead(b"else"), 2, "is not a file of words"),
        (misbehave.reset_in_mid_body, 4, "connection reset by peer"),
        (misbehave.stall_in_mid_body, 4, "no response within 0.5 s"),
        (misbehave.trickle, 4, "stalled"),
        (misbehave.short_body, 4, "the connection closed before the end of the file"),
        (misbehave.invalid_length, 1, "Content-Length"),
        (misbehave.redirect("/elsewhere"), 2, "is not a file of words"),
        (misbehave.redirect("file:///etc/passwd"), 1, "file:///etc/passwd"),
        (misbehave.redirect("http://[::bad/"), 1, "Invalid IPv6 URL"),
    ],
    ids=lambda value: name_of(value) if callable(value) else "",
)
def test_a_permanent_fault_is_reported_after_all_other_files_are_fetched(
    server: MisbehavingServer, tmp_path: Path, fault: Fault, requests: int, reason: str
) -> None:
    server.faults["/3.txt"] = itertools.repeat(fault)
    server.files["/elsewhere"] = b"something else"
    policy = policy_for(fault)
    with pytest.raises(UserError) as caught:
        fetch_many(downloads_of(server.url, tmp_path), connections=2, label="x", policy=policy)
    message = str(caught.value)
    assert message.startswith("x: 1 of 12 files could not be fetched")
    assert f"{server.url}/3.txt: " in message
    assert reason in message
    assert "rerun" in message
    assert "\n" not in message
    assert server.request_counts()["/3.txt"] == requests
    expected = all_words()
    del expected["3.txt"]
    assert words_in(tmp_path) == expected


def test_the_message_names_only_the_first_three_failures(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    for number in range(2, 12):
        server.faults[f"/{number}.txt"] = itertools.repeat(misbehave.status(404))
    with pytest.raises(UserError, match="10 of 12 files") as caught:
        fetch_many(downloads_of(server.url, tmp_path), connections=1, label="x", policy=QUICK)
    assert str(caught.value).count("404") == 3
    assert words_in(tmp_path) == all_words(2)


def test_redirects_are_followed(server: MisbehavingServer, tmp_path: Path) -> None:
    server.files["/moved/3.txt"] = WORDS[3]
    server.faults["/3.txt"] = iter([misbehave.redirect("/via"), misbehave.redirect("/via")])
    server.faults["/via"] = iter([misbehave.redirect(f"{server.url}/moved/3.txt", 307)])
    fetch_many(downloads_of(server.url, tmp_path), connections=2, label="x", policy=QUICK)
    assert words_in(tmp_path) == all_words()


def test_circular_redirects_end_in_an_error(server: MisbehavingServer, tmp_path: Path) -> None:
    server.faults["/0.txt"] = itertools.repeat(misbehave.redirect("/0.txt"))
    with pytest.raises(UserError, match="redirects"):
        fetch_many(downloads_of(server.url, tmp_path, 1), connections=1, label="x", policy=QUICK)
    assert server.request_counts()["/0.txt"] == 31  # one attempt


def test_files_are_requested_uncompressed(server: MisbehavingServer, tmp_path: Path) -> None:
    server.faults = {path: iter([misbehave.compress]) for path in server.files}
    fetch_many(downloads_of(server.url, tmp_path), connections=2, label="x", policy=QUICK)
    assert words_in(tmp_path) == all_words()
    assert set(server.request_counts().values()) == {1}


def test_a_body_larger_than_any_image_is_refused(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocoseg.sources.retry._MAX_SMALL_FILE", len(WORDS[0]) - 1)
    with pytest.raises(UserError, match=rf"the file is larger than {len(WORDS[0]) - 1} bytes"):
        fetch_many(downloads_of(server.url, tmp_path, 1), connections=1, label="x", policy=QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections; no other process can take it during the test."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_an_unreachable_server_stops_the_transfer_early(closed_port: int, tmp_path: Path) -> None:
    downloads = [
        Download(f"http://127.0.0.1:{closed_port}/{n}", tmp_path / str(n), check_words)
        for n in range(8000)
    ]
    with pytest.raises(
        UserError, match=r"without a success .*connection refused.*; fetched 0 of 8000"
    ):
        fetch_many(downloads, connections=16, label="images", policy=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_an_idle_server_stops_the_transfer(server: MisbehavingServer, tmp_path: Path) -> None:
    server.faults["/0.txt"] = itertools.repeat(misbehave.trickle)
    endless = RetryPolicy(min_rate=0, idle_limit=1.5)
    with pytest.raises(UserError, match=r"no file arrived for 2 s"):
        fetch_many(downloads_of(server.url, tmp_path), connections=2, label="x", policy=endless)
    expected = all_words()
    del expected["0.txt"]
    assert words_in(tmp_path) == expected


def test_many_missing_files_do_not_stop_the_transfer(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    missing = [Download(f"{server.url}/no{n}", tmp_path / f"{n}", check_words) for n in range(50)]
    impatient = RetryPolicy(give_up=0.0)
    with pytest.raises(UserError, match="50 of 62 files"):
        fetch_many(
            missing + downloads_of(server.url, tmp_path),
            connections=1,
            label="x",
            policy=impatient,
        )
    assert words_in(tmp_path) == all_words()


@pytest.mark.parametrize(
    ("failing", "give_up"),
    [(range(10), 3600.0), (range(0, 20, 2), 0.0)],
    ids=["in a row, but not for long", "not in a row"],
)
def test_failures_do_not_stop_the_transfer(
    server: MisbehavingServer, tmp_path: Path, failing: range, give_up: float
) -> None:
    server.files = {f"/{number}.txt": WORDS[0] for number in range(20)}
    for number in failing:
        server.faults[f"/{number}.txt"] = itertools.repeat(misbehave.status(503))
    policy = replace(QUICK, attempts=2, give_up=give_up)
    with pytest.raises(UserError, match="10 of 20 files"):
        fetch_many(downloads_of(server.url, tmp_path, 20), connections=1, label="x", policy=policy)
    assert len(words_in(tmp_path)) == 10


def test_files_of_file_urls_are_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "a directory", tmp_path / "target"
    source.mkdir()
    for name, content in all_words().items():
        (source / name).write_bytes(content)
    fetch_many(downloads_of(source.as_uri(), target), connections=2, label="x")
    assert words_in(target) == all_words()
    assert (target / "0.txt").stat().st_nlink == 1
    (source / "0.txt").unlink()
    with pytest.raises(UserError, match=r"0\.txt: no such file or directory"):
        fetch_many(downloads_of(source.as_uri(), target), connections=2, label="x")


def test_waits_double_with_jitter_or_follow_the_server_up_to_a_limit() -> None:
    policy = RetryPolicy(backoff=1.0, max_wait=60.0)
    for failures, doubled in [(1, 1), (2, 2), (4, 8), (30, 60)]:
        waits = [seconds_to_wait(TransferError("x"), failures, policy) for _ in range(50)]
        assert 0.5 * doubled <= min(waits) < max(waits) <= 1.5 * doubled
    assert 7 <= seconds_to_wait(TransferError("x", wait=7), 1, policy) <= 8
    assert 60 <= seconds_to_wait(TransferError("x", wait=86400), 1, policy) <= 61


# --- One large file -----------------------------------------------------------------------------

LARGE = random.Random(0).randbytes(3_000_000)


@pytest.fixture
def large_server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer({"/large.zip": LARGE}) as running:
        yield running


@pytest.fixture
def md5(tmp_path: Path) -> str:
    (tmp_path / "original").write_bytes(LARGE)
    return md5_of(tmp_path / "original")


@pytest.mark.parametrize("fault", TEMPORARY_FAULTS[:9] + TEMPORARY_FAULTS[10:12], ids=name_of)
def test_a_large_file_is_complete_after_a_temporary_fault(
    large_server: MisbehavingServer, tmp_path: Path, fault: Fault, md5: str
) -> None:
    large_server.faults["/large.zip"] = iter([fault])
    path = tmp_path / "new" / "large.zip"
    policy = policy_for(fault)
    fetch_file(f"{large_server.url}/large.zip", path, md5=md5, policy=policy)
    assert path.read_bytes() == LARGE
    assert [path] == list(path.parent.iterdir())


def interrupt(server: MisbehavingServer, path: Path) -> None:
    """Fetch the first 1,000 bytes of the large file, then give up."""
    unavailable = [misbehave.status(503)] * (QUICK.attempts - 1)
    server.faults["/large.zip"] = iter([misbehave.cut_after(1000), *unavailable])
    with pytest.raises(UserError, match=r"large\.zip: status 503 .* rerun"):
        fetch_file(f"{server.url}/large.zip", path, policy=QUICK)
    assert not path.exists()
    assert path.with_name("large.zip.part").read_bytes() == LARGE[:1000]


def test_a_large_file_resumes_where_it_stopped(
    large_server: MisbehavingServer, tmp_path: Path, md5: str
) -> None:
    url, path = f"{large_server.url}/large.zip", tmp_path / "large.zip"
    interrupt(large_server, path)
    fetch_file(url, path, md5=md5, policy=QUICK)
    assert path.read_bytes() == LARGE
    assert {request.range for request in large_server.requests} == {None, "bytes=1000-"}
    assert not list(tmp_path.glob("*.part*"))


def test_a_mebibyte_of_progress_resets_the_attempts(
    large_server: MisbehavingServer, tmp_path: Path
) -> None:
    large_server.faults["/large.zip"] = iter([misbehave.cut_after(1_100_000)] * 2)
    policy = replace(QUICK, attempts=2)  # without the reset, the second fault is one too many
    fetch_file(f"{large_server.url}/large.zip", tmp_path / "large.zip", policy=policy)
    assert (tmp_path / "large.zip").read_bytes() == LARGE


@pytest.mark.parametrize(("size", "supports_ranges"), [(1_000_000, True), (2_000_000, False)])
def test_less_progress_does_not_reset_the_attempts(
    large_server: MisbehavingServer, tmp_path: Path, size: int, supports_ranges: bool
) -> None:
    url, policy = f"{large_server.url}/large.zip", replace(QUICK, attempts=2)
    # Without ranges, each attempt starts from the beginning and gets no further than the first.
    large_server.supports_ranges = supports_ranges
    large_server.faults["/large.zip"] = iter([misbehave.cut_after(size)] * 2)
    with pytest.raises(UserError, match="the connection closed"):
        fetch_file(url, tmp_path / "large.zip", policy=policy)
    assert len(large_server.requests) == 2


@pytest.mark.parametrize(
    "case", ["no ranges", "no version", "another range", "already whole", "too long"]
)
def test_a_large_file_is_complete_however_the_server_treats_ranges(
    large_server: MisbehavingServer, tmp_path: Path, case: str
) -> None:
    path = tmp_path / "large.zip"
    large_server.faults["/large.zip"] = iter([misbehave.cut_after(1000)])
    if case == "no ranges":
        large_server.supports_ranges = False
    elif case == "no version":
        large_server.version = None
    elif case == "another range":
        large_server.faults["/large.zip"] = iter([misbehave.cut_after(9), misbehave.wrong_range])
    else:
        path.with_name("large.zip.part").write_bytes(LARGE + b"x" * (case == "too long"))
        large_server.faults.clear()
    fetch_file(f"{large_server.url}/large.zip", path, policy=QUICK)
    assert path.read_bytes() == LARGE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (('"version 1"', None), ('"version 2"', None)),
        ((None, "Sat, 01 Nov 2025 10:00:00 GMT"), (None, "Sun, 02 Nov 2025 10:00:00 GMT")),
        (('"1"', "Sat, 01 Nov 2025 10:00:00 GMT"), ('"2"', "Sat, 01 Nov 2025 10:00:00 GMT")),
        # A weak ETag may stay the same although the bytes change.
        (('W/"1"', "Sat, 01 Nov 2025 10:00:00 GMT"), ('W/"1"', "Sun, 02 Nov 2025 10:00:00 GMT")),
    ],
    ids=["ETag", "date", "ETag and not date", "weak ETag and date"],
)
def test_a_file_that_changed_on_the_server_is_fetched_from_the_start(
    large_server: MisbehavingServer,
    tmp_path: Path,
    before: tuple[str | None, str | None],
    after: tuple[str | None, str | None],
) -> None:
    large_server.version, large_server.modified = before
    interrupt(large_server, tmp_path / "large.zip")
    large_server.version, large_server.modified = after
    large_server.files["/large.zip"] = LARGE[::-1]
    fetch_file(f"{large_server.url}/large.zip", tmp_path / "large.zip", policy=QUICK)
    assert (tmp_path / "large.zip").read_bytes() == LARGE[::-1]
    assert large_server.requests[-1].if_range in before


def test_a_file_with_another_md5_is_removed_and_fetched_from_the_start_by_the_next_run(
    large_server: MisbehavingServer, tmp_path: Path, md5: str
) -> None:
    url, path = f"{large_server.url}/large.zip", tmp_path / "new" / "large.zip"
    large_server.faults["/large.zip"] = iter([misbehave.serve_instead(b"other")])
    with pytest.raises(
        UserError, match=rf"expected MD5 {md5}, got 795f3202b17cb6bc3d4b771d8c6c9eaf"
    ):
        fetch_file(url, path, md5=md5, policy=QUICK)
    assert list(path.parent.iterdir()) == []
    fetch_file(url, path, md5=md5, policy=QUICK)
    assert path.read_bytes() == LARGE


def test_a_damaged_part_is_replaced_in_the_same_call(
    large_server: MisbehavingServer, tmp_path: Path, md5: str
) -> None:
    path = tmp_path / "large.zip"
    path.with_name("large.zip.part").write_bytes(bytes(1000))
    fetch_file(f"{large_server.url}/large.zip", path, md5=md5, policy=QUICK)
    assert path.read_bytes() == LARGE


def test_refused_connections_are_reported_in_one_line(
    closed_port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"http://127.0.0.1:{closed_port}/large.zip"
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as caught:
        fetch_file(url, tmp_path / "large.zip", policy=QUICK)
    assert str(caught.value).startswith(f"{url}: connection refused; check the URL")
    assert "\n" not in str(caught.value)
    assert len(caplog.messages) == QUICK.attempts - 1


# --- Interruptions and full disks ----------------------------------------------------------------

FETCH = """
import sys
from pathlib import Path
from cocoseg.core.stage import run_stage
from cocoseg.sources.retry import RetryPolicy
from cocoseg.sources.transfer import Download, fetch_file, fetch_many
policy = RetryPolicy(timeout=3600)
url, directory, kind = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

def main():
    if kind == "large":
        return fetch_file(f"{url}/large.zip", directory / "large.zip", policy=policy)
    names = [f"{number}.txt" for number in range(int(kind))]
    accept = lambda path: None
    downloads = [Download(f"{url}/{name}", directory / name, accept) for name in names]
    return fetch_many(downloads, connections=4, label="files", policy=policy)

run_stage(main, directory.parent / "machine.json")
"""

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_after_a_kill_only_the_missing_files_are_fetched(
    tmp_path: Path, number: signal.Signals
) -> None:
    directory, content = tmp_path / "files", b"word " * 20_000
    files = {f"/{n}.txt": content for n in range(60)}
    with MisbehavingServer(files) as server:
        server.faults = {name: iter([misbehave.stall_in_mid_body]) for name in list(files)[25:]}
        process = start_program(FETCH, server.url, str(directory), "60")
        server.wait_for_requests(25 + 4, process)  # then all four connections stall
        end_by_signal(process, number)
        whole = {f"/{path.name}" for path in directory.glob("[0-9]*")}
        assert len(whole) == 25
        assert all((directory / name[1:]).read_bytes() == content for name in whole)

        server.requests.clear()
        server.faults.clear()
        missing = [
            Download(f"{server.url}{name}", directory / name[1:], lambda path: None)
            for name in files
            if name not in whole
        ]
        fetch_many(missing, connections=4, label="files", policy=QUICK)
        assert server.request_counts().keys() == files.keys() - whole
        assert words_in(directory) == {name[1:]: content for name in files}


@pytest.mark.parametrize("number", SIGNALS[1:])
def test_an_interruption_does_not_wait_for_a_stalled_server(
    tmp_path: Path, number: signal.Signals
) -> None:
    with MisbehavingServer({f"/{n}.txt": WORDS[0] for n in range(8)}) as server:
        for n in range(8):
            server.faults[f"/{n}.txt"] = itertools.repeat(misbehave.stall_in_mid_body)
        process = start_program(FETCH, server.url, str(tmp_path / "files"), "8")
        server.wait_for_requests(4, process)
        end_by_signal(process, number)
        assert not list((tmp_path / "files").glob("[0-9]*"))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_killed_transfer_of_a_large_file_resumes(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "files" / "large.zip"
    part = path.with_name("large.zip.part")
    with MisbehavingServer({"/large.zip": LARGE}) as server:
        server.faults["/large.zip"] = iter([misbehave.stall_in_mid_body])
        process = start_program(FETCH, server.url, str(path.parent), "large")
        wait_until(lambda: part.exists() and part.stat().st_size > 100_000, process)
        end_by_signal(process, number)
        size = part.stat().st_size
        assert not path.exists()
        assert LARGE.startswith(part.read_bytes())

        fetch_file(f"{server.url}/large.zip", path, policy=QUICK)
        assert server.requests[-1].range == f"bytes={size}-"
        assert path.read_bytes() == LARGE


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)


def test_a_full_disk_stops_the_transfer_at_once_and_the_fetched_files_are_kept(
    small_disk: Path,
) -> None:
    content = b"word " * 8_000
    files = {f"/{n}.txt": content for n in range(200)}
    directory = small_disk / "files"
    with MisbehavingServer(files) as server:
        process = start_program(FETCH, server.url, str(directory), "200")
        messages = wait_for_end(process)
        assert process.returncode == 1
        assert messages.splitlines()[-1].startswith("error: No space left on device")
        assert "Traceback" not in messages
        assert len(server.requests) < 40
        kept = words_in(directory)
        assert kept
        assert set(kept.values()) == {content}

        make_room(small_disk)
        server.requests.clear()
        missing = [
            Download(server.url + name, directory / name[1:], lambda path: None)
            for name in files
            if name[1:] not in kept
        ]
        fetch_many(missing, connections=4, label="files", policy=QUICK)
        assert len(server.requests) == 200 - len(kept)


def test_a_large_file_resumes_when_a_full_disk_has_room_again(small_disk: Path) -> None:
    with MisbehavingServer({"/large.zip": LARGE}) as server:
        with pytest.raises(OSError, match="No space left") as caught:
            fetch_file(f"{server.url}/large.zip", small_disk / "large.zip", policy=QUICK)
        assert caught.value.errno == errno.ENOSPC
        assert len(server.requests) == 1
        size = (small_disk / "large.zip.part").stat().st_size
        assert size > 100_000
        make_room(small_disk)
        fetch_file(f"{server.url}/large.zip", small_disk / "large.zip", policy=QUICK)
        assert server.requests[-1].range == f"bytes={size}-"
        assert (small_disk / "large.zip").read_bytes() == LARGE
