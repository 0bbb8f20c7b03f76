"""Files and directories that appear under their final name only when complete; safe file names."""

import csv
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote


def _temporary_sibling(path: Path) -> Path:
    """A temporary name in the directory of `path`, so that the final rename is atomic.

    The name is always the same, so that a new run replaces the leftovers of a killed one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    remove(temporary)
    return temporary


def remove(path: Path) -> None:
    """Remove a file or a directory with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file that replaces `path` only if the block succeeds.

    Yields:
        A temporary path to write to. It is removed if the block raises.

    Raises:
        OSError: ENOSPC with `path` as its file name if the disk is full.
    """
    temporary = _temporary_sibling(path)
    try:
        with _name_full_disk(path):
            yield temporary
            temporary.replace(path)
    finally:
        remove(temporary)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Write a directory that replaces the directory `path` only if the block succeeds.

    Yields:
        An empty temporary directory. It is removed if the block raises.

    Raises:
        OSError: ENOSPC with `path` as its file name if the disk is full.
    """
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        with _name_full_disk(path):
            yield temporary
            remove(path)
            temporary.replace(path)
    finally:
        remove(temporary)


@contextmanager
def _name_full_disk(path: Path) -> Iterator[None]:
    """Raise each error of a full disk as an OSError that names `path`.

    Python's error from a write names no file, and safetensors raises another exception type.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ENOSPC or f"(os error {errno.ENOSPC})" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise


MAX_NAME_BYTES = 200
"""The longest name: file systems allow 255 bytes, and temporary names and extensions need some."""

_UNSAFE = re.compile(r'[%+\\:*?"<>|]|^\.|[. ]\Z')


def flat_name(text: str) -> str:
    """A file name that encodes `text` reversibly: `a/b.jpg` becomes `a+b.jpg`.

    `/` becomes `+`. Percent-encoding replaces `+`, `%` and everything that some file system does
    not allow: control characters, `\\ : * ? " < > |`, a leading dot, a trailing dot or space.
    """
    safe = _UNSAFE.sub(_percent, text)
    return "".join(c if c.isprintable() else _percent(c) for c in safe).replace("/", "+")


def free_name(name: str, taken: set[str]) -> str:
    """Choose `name`, or the first free one of `name-2`, `name-3`, …, and add it to `taken`.

    Case is ignored, as some file systems do: `taken` holds names in `str.casefold`.
    """
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free


def curve_name(text: str) -> str:
    """A `flat_name` that is also safe as a column name in DVC's plots.

    An apostrophe ends a string in DVC's plot page, and Vega reads dots and brackets as access to
    nested values.
    """
    return re.sub(r"[.'\[\]]", lambda found: f"%{ord(found.group()):02X}", flat_name(text))


def _percent(character: str | re.Match[str]) -> str:
    character = character if isinstance(character, str) else character.group()
    # quote() does not encode a dot.
    return "%2E" if character == "." else quote(character, safe="", errors="surrogatepass")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `\\n` line ends on every platform."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON that ends with a newline.

    Raises:
        ValueError: `value` contains NaN or an infinity.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write at least one row as CSV; the keys of the first row are the header."""
    rows = list(rows)
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
