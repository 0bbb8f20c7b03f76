"""Fetch many small images with `download_images`, compared with one request after the other.

    python -m benchmarks.transfer [--images 8000] [--delay 0.05]

A server in another process answers each request after `--delay` seconds. The plain loop calls
`requests.get` in one session and writes each file unchecked; it is timed on some of the images and
extrapolated. `download_images` also decodes each image. The benchmark fails if it is not 8 times
faster.
"""

import argparse
import io
import multiprocessing
import shutil
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from cocoseg.coco.instances import ImageRecord
from cocoseg.sources.coco_server import download_images

CLAIM = 8.0
WIDTH, HEIGHT = 640, 480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before each answer")
    arguments = parser.parse_args()
    images = [ImageRecord(n, f"{n:012}.jpg", WIDTH, HEIGHT) for n in range(arguments.images)]
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(
        target=serve, args=(jpeg_bytes(), arguments.delay, there), daemon=True
    )
    server.start()
    base_url = f"http://127.0.0.1:{here.recv()}"
    directory = Path(tempfile.mkdtemp(prefix="benchmark_transfer_"))
    try:
        part = images[: min(200, len(images))]
        plain = len(part) / seconds_one_at_a_time(base_url, part, directory / "plain")
        print(
            f"server: {len(jpeg_bytes()) / 1000:.0f} kB per image, {arguments.delay} s per answer"
        )
        print(f"one at a time ({len(part)} images, extrapolated): {plain:.0f} images/s")
        ratios = []
        for connections in (16, 32):
            started = time.perf_counter()
            download_images(
                base_url, "val2014", images, directory / str(connections), connections=connections
            )
            rate = len(images) / (time.perf_counter() - started)
            ratios.append(rate / plain)
            print(
                f"download_images, {connections} connections ({len(images)} images): "
                f"{rate:.0f} images/s, ratio {ratios[-1]:.1f}"
            )
    finally:
        server.terminate()
        shutil.rmtree(directory)
    print(f"best ratio {max(ratios):.1f} (claimed: at least {CLAIM:.0f})")
    if max(ratios) < CLAIM:
        raise SystemExit(1)


def seconds_one_at_a_time(base_url: str, images: list[ImageRecord], directory: Path) -> float:
    """Time the plain loop."""
    directory.mkdir()
    started = time.perf_counter()
    with requests.Session() as session:
        for image in images:
            answer = session.get(f"{base_url}/val2014/{image.file_name}")
            (directory / image.file_name).write_bytes(answer.content)
    return time.perf_counter() - started


def jpeg_bytes() -> bytes:
    """A JPEG about as large as COCO's: smooth shapes with some noise."""
    noise = np.random.default_rng(0).normal(0, 12, (HEIGHT, WIDTH, 3))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = 128 + 80 * np.sin(x / 40) * np.cos(y / 30)
    pixels = (smooth[:, :, None] + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def serve(content: bytes, delay: float, port: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # headers and body in one piece

        def do_GET(self) -> None:
            time.sleep(delay)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as server:
        port.send(server.server_address[1])
        server.serve_forever()


if __name__ == "__main__":
    main()
