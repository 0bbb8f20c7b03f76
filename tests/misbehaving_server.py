"""A real HTTP server on the loopback that misbehaves as told, and remembers what it was asked.

    with MisbehavingServer({"/a.jpg": content}) as server:
        server.faults["/a.jpg"] = iter([reset_in_mid_body, status(503)])   # then it behaves
        server.faults["/b.jpg"] = itertools.repeat(stall)                  # always

A well-behaved answer supports ranges, If-Range and kept-alive connections, like a real file server.
"""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import unquote

Answer = Callable[["Handler", bytes], None]


class Request(NamedTuple):
    path: str
    range: str | None


class LoopbackServer(ThreadingHTTPServer):
    """An HTTP server in threads of this process; `with` starts and ends it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up in mid-answer are what some tests are about."""


class MisbehavingServer(LoopbackServer):
    def __init__(self, files: dict[str, bytes], delay: float = 0.0) -> None:
        super().__init__(Handler)
        self.files = files
        self.defects: dict[str, Iterator[Answer]] = {}
        self.delay = delay
        self.supports_ranges = True
        self.version: str | None = '"version 1"'
        self.requests: list[Request] = []
        self.connections = 0
        self._changed = threading.Condition()

    def request_counts(self) -> Counter[str]:
        return Counter(request.path for request in self.requests)

    def note(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def wait_for_requests(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self.requests) >= number)


class Handler(BaseHTTPRequestHandler):
    server: MisbehavingServer
    protocol_version = "HTTP/1.1"
    # Headers and body would otherwise wait for each other (Nagle and delayed acknowledgements).
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.server.note(Request(path, self.headers.get("Range")))
        if self.server.delay:
            time.sleep(self.server.delay)
        defect = next(self.server.defects.get(path, iter(())), None)
        body = self.server.files.get(path)
        if defect is not None:
            defect(self, body or b"")
        elif body is None:
            status(404)(self, b"")
        else:
            behave(self, body)

    def head(self, code: int, length: int | str | None, **headers: str) -> None:
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def hang_up(self) -> None:
        self.close_connection = True

    def reset(self) -> None:
        """End the connection with a TCP reset instead of an orderly close."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def behave(handler: Handler, body: bytes) -> None:
    """A whole file, or the range that was asked for."""
    version = handler.server.version
    headers = {"ETag": version} if version else {}
    asked = handler.headers.get("Range")
    if asked and handler.server.supports_ranges:
        same = handler.headers.get("If-Range") in (None, version)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if same and start >= len(body):
            handler.head(416, 0, Content_Range=f"bytes */{len(body)}")
            return
        if same:
            content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
            handler.head(206, len(body) - start, Content_Range=content_range, **headers)
            handler.wfile.write(body[start:])
            return
    handler.head(200, len(body), **headers)
    handler.wfile.write(body)


def reset_before_answer(handler: Handler, body: bytes) -> None:
    handler.reset()


def no_http(handler: Handler, body: bytes) -> None:
    handler.wfile.write(b"220 mail.example.org ESMTP\r\n\r\n")
    handler.hang_up()


def reset_in_mid_body(handler: Handler, body: bytes) -> None:
    handler.head(200, len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    time.sleep(0.02)  # else the reset overtakes the half body
    handler.reset()


def stall_before_answer(handler: Handler, body: bytes) -> None:
    handler.server.closing.wait()
    handler.hang_up()


def stall_in_mid_body(handler: Handler, body: bytes) -> None:
    handler.head(200, len(body), ETag=handler.server.version or "")
    handler.wfile.write(body[: len(body) // 2])
    handler.server.closing.wait()
    handler.hang_up()


def trickle(handler: Handler, body: bytes, quickly: int = 0) -> None:
    """A byte now and then: never silent for long, and never done."""
    handler.head(200, len(body))
    handler.wfile.write(body[:quickly])
    for index in range(quickly, len(body)):
        handler.wfile.write(body[index : index + 1])
        if handler.server.closing.wait(0.02):
            break
    handler.hang_up()


def trickle_after_half(handler: Handler, body: bytes) -> None:
    trickle(handler, body, quickly=len(body) // 2)


def short_body(handler: Handler, body: bytes) -> None:
    """The headers are right, but the connection ends after half of the body."""
    handler.head(200, len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.hang_up()


def short_body_in_pieces(handler: Handler, body: bytes) -> None:
    """The same, where the length is not known beforehand (chunked)."""
    handler.head(200, None, Transfer_Encoding="chunked")
    half = body[: len(body) // 2]
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
    handler.hang_up()


def length_too_small(handler: Handler, body: bytes) -> None:
    """More bytes come than announced, and are taken for the next answer by a careless client."""
    handler.head(200, len(body) // 2)
    handler.wfile.write(body)


def length_too_large(handler: Handler, body: bytes) -> None:
    handler.head(200, len(body) + 100)
    handler.wfile.write(body)
    handler.hang_up()


def length_of_nonsense(handler: Handler, body: bytes) -> None:
    handler.head(200, "12, 13")
    handler.hang_up()


def web_page(handler: Handler, body: bytes) -> None:
    page = b"<!doctype html><title>Sign in</title>"
    handler.head(200, len(page), Content_Type="text/html; charset=utf-8")
    handler.wfile.write(page)


def web_page_without_type(handler: Handler, body: bytes) -> None:
    page = b"<!doctype html><title>Sign in</title>"
    handler.head(200, len(page))
    handler.wfile.write(page)


def wrong_range(handler: Handler, body: bytes) -> None:
    """Another range than the one asked for."""
    content_range = f"bytes 0-{len(body) - 1}/{len(body)}"
    handler.head(206, len(body), Content_Range=content_range)
    handler.wfile.write(body)


def status(code: int, **headers: str) -> Answer:
    def answer(handler: Handler, body: bytes) -> None:
        handler.head(code, 0, **headers)

    return answer


def redirect(location: str, code: int = 302) -> Answer:
    return status(code, Location=location)


def serve_instead(other: bytes) -> Answer:
    def answer(handler: Handler, body: bytes) -> None:
        behave(handler, other)

    return answer


def cut_after(size: int) -> Answer:
    """The connection ends after `size` further bytes of what was asked for."""

    def answer(handler: Handler, body: bytes) -> None:
        asked = handler.headers.get("Range") if handler.server.supports_ranges else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers = {"ETag": handler.server.version} if handler.server.version else {}
        if asked:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.head(206 if asked else 200, len(body) - start, **headers)
        handler.wfile.write(body[start : start + size])
        handler.hang_up()

    return answer
