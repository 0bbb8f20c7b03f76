"""Files and folders that appear under their final name only when they are whole."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def _temporary_sibling(path: Path) -> Path:
    """The temporary name for `path`: in the same folder, so that the final rename is atomic.

    It is always the same one, so that what a killed run left behind is replaced by the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    remove(temporary)
    return temporary


def remove(path: Path) -> None:
    """Remove a file or a whole folder, or do nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` if the block ends without an error."""
    temporary = _temporary_sibling(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        remove(temporary)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it replaces the folder `path` if the block ends well."""
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        remove(path)
        temporary.replace(path)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `\\n` line ends on every platform."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON that ends in a newline; NaN and infinities are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
