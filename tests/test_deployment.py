"""The examples of docs/deployment.md."""

import io
import re
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
import rasterio
from PIL import Image
from werkzeug.serving import make_server

import cocoseg
from cocoseg.models.weights import save_model
from tests import LIMIT_S, ROOT, wait_until
from tests.networks import blotches, lively_model


def example(text: str) -> str:
    """The block of Python code that contains `text`."""
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if text in block)
    return str(block)


@pytest.fixture
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    path = Path("models/model.safetensors")
    save_model(path, *lively_model())
    return path


@pytest.fixture
def server(model_file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL of the running example, and its names."""
    names: dict[str, Any] = {"__name__": "server"}
    exec(compile(example("Flask"), "server.py", "exec"), names)
    running = make_server("127.0.0.1", 0, names["app"], threaded=True)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/masks", names
    running.shutdown()
    thread.join(LIMIT_S)


def post(url: str, body: bytes) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, body, timeout=LIMIT_S) as response:
            return response.status, response.read()
    except HTTPError as error:
        return error.code, error.read()


def test_the_server_returns_masks_and_refuses_damaged_images(
    server: tuple[str, dict[str, Any]], model_file: Path
) -> None:
    url, _ = server
    file = io.BytesIO()
    Image.fromarray(blotches(60, 80)).save(file, "JPEG")
    status, mask = post(url, file.getvalue())
    assert status == 200
    expected = cocoseg.load(model_file).predict(file).labels
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(mask))), expected)
    assert post(url, file.getvalue()[:300])[0] == 400
    status, text = post(url, b"%PDF")
    assert (status, text.count(b"\n")) == (400, 1)
    assert text.startswith(b"the image is not a JPEG")


def test_under_load_eight_requests_wait_and_others_are_refused(
    server: tuple[str, dict[str, Any]],
) -> None:
    url, names = server
    file = io.BytesIO()
    Image.fromarray(blotches(60, 80)).save(file, "PNG")

    def is_full() -> bool:
        free = names["places"].acquire(blocking=False)
        if free:
            names["places"].release()
        return not free

    with ThreadPoolExecutor(8) as clients:
        with names["network"]:  # the network is busy
            waiting = [clients.submit(post, url, file.getvalue()) for _ in range(8)]
            wait_until(is_full)
            assert post(url, file.getvalue()) == (503, b"busy: try again later\n")
        answers = [request.result(LIMIT_S) for request in waiting]
    assert {status for status, _ in answers} == {200}
    assert len({mask for _, mask in answers}) == 1
    assert post(url, file.getvalue()) == answers[0]


def test_the_mask_of_a_geotiff_has_its_reference(model_file: Path) -> None:
    image = blotches(150, 200)
    transform = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    form = {"width": 200, "height": 150, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open("field.tif", "w", driver="GTiff", transform=transform, **form) as file:
        file.write(image.transpose(2, 0, 1))
    exec(compile(example("rasterio"), "deployment.md", "exec"), {})
    with rasterio.open("field_mask.tif") as mask:
        assert (mask.crs.to_epsg(), mask.transform) == (32633, transform)
        expected = cocoseg.load(model_file).predict(image, tiles="full").labels
        assert np.array_equal(mask.read(1), expected)
