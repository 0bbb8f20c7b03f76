"""An HTTP server on the loopback interface that misbehaves on demand and records its requests.

    with MisbehavingServer({"/a.jpg": content}) as server:
        server.faults["/a.jpg"] = iter([reset_in_mid_body, status(503)])   # the first two times
        server.faults["/b.jpg"] = itertools.repeat(stall_in_mid_body)      # always

Without a fault, the server supports ranges, If-Range and persistent connections, like a real file
server.
"""

import gzip
import io
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import unquote

from PIL import Image

from cocoseg.coco.instances import ImageRecord
from tests import wait_until

Fault = Callable[["Handler", bytes], None]
"""Responds to a request for a file with this content."""


class Request(NamedTuple):
    path: str
    range: str | None
    if_range: str | None


def jpeg_bytes(width: int, height: int) -> bytes:
    """Draw noise."""
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "JPEG")
    return buffer.getvalue()


def coco_files(split: str, images: Sequence[ImageRecord]) -> dict[str, bytes]:
    """Draw the images of a split, at the paths of COCO's server."""
    return {f"/{split}/{i.file_name}": jpeg_bytes(i.width, i.height) for i in images}


class LoopbackServer(ThreadingHTTPServer):
    """An HTTP server in threads of this process; a `with` block starts and stops it."""

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
        """Print nothing: some tests break connections on purpose."""


class MisbehavingServer(LoopbackServer):
    """A file server that misbehaves on demand.

    Attributes:
        files: the content of each path.
        faults: for each path, the responses to the next requests; afterwards it behaves.
        delay: seconds before each response.
        supports_ranges: whether it honors the header Range.
        version: the ETag of all files.
        modified: the header Last-Modified of all files.
        requests: the received requests.
        connections: how many connections were opened.
    """

    def __init__(self, files: dict[str, bytes], delay: float = 0.0) -> None:
        super().__init__(Handler)
        self.files = files
        self.faults: dict[str, Iterator[Fault]] = {}
        self.delay = delay
        self.supports_ranges = True
        self.version: str | None = '"version 1"'
        self.modified: str | None = None
        self.requests: list[Request] = []
        self.connections = 0

    def request_counts(self) -> Counter[str]:
        return Counter(request.path for request in self.requests)

    def wait_for_requests(self, number: int, process: "subprocess.Popen[Any]") -> None:
        """Wait until `process` has sent `number` requests; fail if it ends before that."""
        wait_until(lambda: len(self.requests) >= number, process)

    @property
    def version_headers(self) -> dict[str, str]:
        headers = {"ETag": self.version, "Last_Modified": self.modified}
        return {name: value for name, value in headers.items() if value}


class Handler(BaseHTTPRequestHandler):
    server: MisbehavingServer
    protocol_version = "HTTP/1.1"
    # Otherwise headers and body wait for each other (Nagle's algorithm and delayed ACKs).
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        path = unquote(self.path)
        request = Request(path, self.headers.get("Range"), self.headers.get("If-Range"))
        self.server.requests.append(request)
        time.sleep(self.server.delay)
        fault = next(self.server.faults.get(path, iter(())), None)
        body = self.server.files.get(path)
        if fault is not None:
            fault(self, body or b"")
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
        """Close the connection with a TCP reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def behave(handler: Handler, body: bytes) -> None:
    """Send the file, or the requested range.

    The server compares If-Range as text, even with a weak ETag, as some servers wrongly do.
    """
    headers = handler.server.version_headers
    start = requested_start(handler)
    if start is not None:
        same = handler.headers.get("If-Range") in (None, *headers.values())
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


def requested_start(handler: Handler) -> int | None:
    """The first byte of the requested range, if there is one and the server supports ranges."""
    requested = handler.headers.get("Range") if handler.server.supports_ranges else None
    return int(requested.removeprefix("bytes=").removesuffix("-")) if requested else None


def reset_before_response(handler: Handler, body: bytes) -> None:
    handler.reset()


def not_http(handler: Handler, body: bytes) -> None:
    handler.wfile.write(b"220 mail.example.org ESMTP\r\n\r\n")
    handler.hang_up()


def reset_in_mid_body(handler: Handler, body: bytes) -> None:
    handler.head(200, len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    time.sleep(0.02)  # otherwise the reset overtakes the body
    handler.reset()


def stall_before_response(handler: Handler, body: bytes) -> None:
    handler.server.closing.wait()
    handler.hang_up()


def stall_in_mid_body(handler: Handler, body: bytes) -> None:
    handler.head(200, len(body), **handler.server.version_headers)
    handler.wfile.write(body[: len(body) // 2])
    handler.server.closing.wait()
    handler.hang_up()


def trickle(handler: Handler, body: bytes, quickly: int = 0) -> None:
    """Send a byte now and then: the connection is never idle for long, and never done."""
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
    """Close the connection after half of the body."""
    handler.head(200, len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.hang_up()


def short_chunked_body(handler: Handler, body: bytes) -> None:
    """Close the connection after half of a body of unannounced length."""
    handler.head(200, None, Transfer_Encoding="chunked")
    half = body[: len(body) // 2]
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
    handler.hang_up()


def length_too_small(handler: Handler, body: bytes) -> None:
    """Send more bytes than announced; a careless client takes them for the next response."""
    handler.head(200, len(body) // 2)
    handler.wfile.write(body)


def length_too_large(handler: Handler, body: bytes) -> None:
    handler.head(200, len(body) + 100)
    handler.wfile.write(body)
    handler.hang_up()


def invalid_length(handler: Handler, body: bytes) -> None:
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


def compress(handler: Handler, body: bytes) -> None:
    """Compress the body if the client accepts it, as many servers do."""
    if "gzip" in handler.headers.get("Accept-Encoding", ""):
        packed = gzip.compress(body)
        handler.head(200, len(packed), Content_Encoding="gzip")
        handler.wfile.write(packed)
    else:
        behave(handler, body)


def wrong_range(handler: Handler, body: bytes) -> None:
    """Send another range than the requested one."""
    content_range = f"bytes 0-{len(body) - 1}/{len(body)}"
    handler.head(206, len(body), Content_Range=content_range)
    handler.wfile.write(body)


def status(code: int, **headers: str) -> Fault:
    def respond(handler: Handler, body: bytes) -> None:
        handler.head(code, 0, **headers)

    return respond


def redirect(location: str, code: int = 302) -> Fault:
    return status(code, Location=location)


def serve_instead(other: bytes) -> Fault:
    def respond(handler: Handler, body: bytes) -> None:
        behave(handler, other)

    return respond


def cut_after(size: int) -> Fault:
    """Close the connection after `size` bytes of the requested range."""

    def respond(handler: Handler, body: bytes) -> None:
        start = requested_start(handler)
        headers = handler.server.version_headers
        if start is not None:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        remaining = body[start or 0 :]
        handler.head(200 if start is None else 206, len(remaining), **headers)
        handler.wfile.write(remaining[:size])
        handler.hang_up()

    return respond
