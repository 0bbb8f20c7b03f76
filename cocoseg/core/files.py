"""Files and folders that appear under their final name only when they are whole, and safe names."""

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
        with _full_disk_named(path):
            yield temporary
            temporary.replace(path)
    finally:
        remove(temporary)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it replaces the folder `path` if the block ends well."""
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        with _full_disk_named(path):
            yield temporary
            remove(path)
            temporary.replace(path)
    finally:
        remove(temporary)


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Raise every error for want of room as an OSError that names `path`.

    That of a write names no file, and safetensors has an exception of its own.
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
    """A file name that stands for `text`, and for no other text: `a/b.jpg` becomes `a+b.jpg`.

    `/` becomes `+`. What some file system does not bear (control characters, `\\ : * ? " < > |`, a
    leading dot, a last dot or space), `+` and `%` become what they are in addresses, such as `%3A`.
    """
    safe = _UNSAFE.sub(_percent, text)
    return "".join(c if c.isprintable() else _percent(c) for c in safe).replace("/", "+")


def free_name(name: str, taken: set[str]) -> str:
    """`name`, or `name-2`, `name-3`, … where it is taken; it is then added to `taken`.

    Upper and lower case count as the same, as they do on some file systems: `taken` holds names in
    `str.casefold`.
    """
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free


def curve_name(text: str) -> str:
    """A `flat_name` that DVC's plots bear as well: its page ends a string at an apostrophe, and for
    Vega a dot or a bracket in a column's name leads into a nested value."""
    return re.sub(r"[.'\[\]]", lambda found: f"%{ord(found.group()):02X}", flat_name(text))


def _percent(character: str | re.Match[str]) -> str:
    character = character if isinstance(character, str) else character.group()
    # quote leaves a dot as it is.
    return "%2E" if character == "." else quote(character, safe="", errors="surrogatepass")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `\\n` line ends on every platform."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON that ends in a newline; NaN and infinities are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of the same keys, one at least, as CSV with these as its first line."""
    rows = list(rows)
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
