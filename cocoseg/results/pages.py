"""Pages of one file: styles and pictures inside, no scripts, nothing asked of the network."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_page(template: str, **values: Any) -> str:
    """The HTML of a template that lies beside this file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(score=score, count=count, size=size, words=words, plain=plain)
    return environment.get_template(template).render(values)


def jpeg_uri(content: bytes) -> str:
    """A JPEG file's content as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"  # noqa: RUF001


def count(value: float) -> str:
    return f"{value:,}"


def size(value: float) -> str:
    """Bytes as people read them: `5.3 MB`."""
    units = ["bytes", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def plain(value: Any) -> str:
    """A parameter or figure as people write it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, int) and abs(value) >= 100_000:
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def words(key: str) -> str:
    return key.replace("_", " ").replace("miou", "mean IoU")
