"""Files appear under their final name only when complete."""

import errno
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from cocoseg.core.files import (
    atomic_directory,
    atomic_file,
    curve_name,
    flat_name,
    free_name,
    write_csv,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_json(path, {"miou": 0.5})
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "miou": 0.5\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_directory_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "masks"
    with atomic_directory(directory) as temporary:
        (temporary / "old").touch()
    with pytest.raises(RuntimeError), atomic_directory(directory) as temporary:
        (temporary / "new").touch()
        raise RuntimeError
    assert [path.name for path in directory.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [directory]


def test_a_complete_directory_replaces_the_old_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "masks") as temporary:
            (temporary / name).touch()
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["new"]


def test_leftovers_of_a_killed_run_are_discarded(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "masks") as temporary:
        leftover = temporary
    leftover.mkdir()
    (leftover / "half").touch()
    with atomic_directory(tmp_path / "masks"):
        pass
    assert list((tmp_path / "masks").iterdir()) == []


def test_a_read_only_file_is_replaced_not_edited(tmp_path: Path) -> None:
    """The file may be a link to DVC's cache, which an edit in place would corrupt."""
    cached = tmp_path / "cached"
    write_json(cached, 1)
    linked = tmp_path / "linked"
    linked.hardlink_to(cached)
    linked.chmod(0o444)
    write_json(linked, 2)
    assert (cached.read_text(), linked.read_text()) == ("1\n", "2\n")


def test_a_full_disk_is_an_error_that_names_the_file(small_disk: Path) -> None:
    path, directory = small_disk / "scores.json", small_disk / "masks"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space left") as from_python:
        write_text(path, "x" * 1_000_000)
    with pytest.raises(OSError, match="No space left") as from_rust, atomic_file(path) as temporary:
        save_file({"weights": torch.zeros(1_000_000)}, temporary)
    with (
        pytest.raises(OSError, match="No space left") as in_directory,
        atomic_directory(directory) as half,
    ):
        (half / "a.png").write_bytes(bytes(1_000_000))
    errors = [caught.value for caught in (from_python, from_rust, in_directory)]
    assert [error.errno for error in errors] == [errno.ENOSPC] * 3
    assert [error.filename for error in errors] == [str(path), str(path), str(directory)]
    assert [name.name for name in small_disk.iterdir()] == ["scores.json"]
    assert path.read_text() == "old"


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "scores.json", {"miou": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_csv_has_a_header_and_quotes_only_where_needed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_csv(path, iter([{"name": "a,b", "count": 1}, {"count": 2, "name": "ü"}]))
    assert path.read_bytes() == 'name,count\n"a,b",1\nü,2\n'.encode()


def test_a_taken_name_gets_the_next_free_number_whatever_its_case() -> None:
    taken: set[str] = set()
    names = [free_name(name, taken) for name in ("Cat", "cat", "CAT", "cat-2", "dog")]
    assert names == ["Cat", "cat-2", "CAT-3", "cat-2-2", "dog"]
    assert taken == {name.casefold() for name in names}


def test_a_flat_name_is_valid_on_every_file_system() -> None:
    assert flat_name("a/b c.jpg") == "a+b c.jpg"
    assert flat_name("a+b%.jpg") == "a%2Bb%25.jpg"
    assert flat_name('.."?\\\n/.') == "%2E.%22%3F%5C%0A+%2E"
    assert flat_name("写真/ü.png") == "写真+ü.png"


def test_a_curve_name_has_no_character_that_is_special_in_dvcs_plots() -> None:
    assert curve_name("it's a.b[1]/c") == "it%27s a%2Eb%5B1%5D+c"


@given(st.text(), st.text("./+%2E:\\ab"))
def test_a_flat_name_can_be_decoded(any_text: str, similar: str) -> None:
    for text in (any_text, similar):
        name = flat_name(text)
        assert name.isprintable()
        assert not set('/\\:*?"<>|') & set(name)
        assert not name.startswith(".")
        assert not name.endswith((".", " "))
        assert unquote(name.replace("+", "/"), errors="surrogatepass") == text
