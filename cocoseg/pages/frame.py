"""Pages of one file: styles and pictures inside, no scripts, nothing asked of the network."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cocoseg.common.errors import UserError
from cocoseg.common.labels import PALETTE


def render_page(template: Path, **values: Any) -> str:
    """The HTML of a template, which may use those that lie beside this file."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=score, count=count, size=size, words=words, plain=plain, jpeg=jpeg_uri
    )
    return environment.get_template(template.name).render(values)


def jpeg_uri(content: bytes) -> str:
    """A JPEG file's content as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def read_json(path: Path, default: Any = None) -> Any:
    """The content of a JSON file, or `default` where there is no file.

    Raises UserError when it is damaged.
    """
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged: remove it, and `dvc repro` makes it anew") from None


def class_colours(names: Sequence[str]) -> dict[str, str]:
    """The colour of each class as `#rrggbb`, as in the pictures; names are in label order.

    The background, which pictures leave clear, is grey.
    """
    return {
        name: hex_colour(PALETTE[label]) if label else "#7a8490" for label, name in enumerate(names)
    }


def hex_colour(colour: Sequence[int]) -> str:
    """RGB of 0 to 255 as `#rrggbb`."""
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def flatten(value: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, with keys such as `a.b`."""
    flat: dict[str, Any] = {}
    for key, content in value.items():
        if isinstance(content, Mapping):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(content).items()}
        else:
            flat[key] = content
    return flat


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
