"""The public API: `import cocoseg`, its documentation, and the built wheel."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from PIL import Image

import cocoseg
from cocoseg.models.weights import save_model
from tests import ROOT
from tests.networks import NAMES, blotches, lively_model


def test_every_public_name_can_be_imported() -> None:
    assert cocoseg.__all__ == sorted(set(cocoseg.__all__), key=cocoseg.__all__.index)
    for name in cocoseg.__all__:
        assert getattr(cocoseg, name) is not None
    assert cocoseg.__version__ == "0.1.0"
    assert set(cocoseg.__all__) <= set(dir(cocoseg))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = cocoseg.lod  # type: ignore[attr-defined]


def test_type_checkers_see_the_names_that_are_imported() -> None:
    module = ast.parse((ROOT / "cocoseg/__init__.py").read_text(encoding="utf-8"))
    typed = {}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cocoseg."):
            (alias,) = node.names
            assert alias.asname == alias.name  # `as` makes it public
            typed[alias.name] = node.module
    assert typed == {name: f"cocoseg.{module}" for name, module in cocoseg._MODULE_OF.items()}
    assert (ROOT / "cocoseg/py.typed").is_file()


def test_importing_cocoseg_does_not_import_torch() -> None:
    code = "import sys, cocoseg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_examples_of_the_documentation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block of docs/python.md, in order, on a small model and three images."""
    monkeypatch.chdir(tmp_path)
    for directory in ("models", "images", "first/metrics", "second/metrics"):
        Path(directory).mkdir(parents=True)
    save_model(Path("models/model.safetensors"), *lively_model())
    Image.fromarray(blotches(120, 500)).save("image.jpg")
    writer = cocoseg.CocoWriter(NAMES)
    confusions = {}
    for number in range(3):
        image = blotches(60, 80, number)
        Image.fromarray(image).save(f"images/{number}.jpg")
        labels = image.argmax(axis=2).astype("uint8")
        writer.add(f"{number}.jpg", labels)
        confusions[f"{number}"] = cocoseg.count_confusion(labels, labels, 3).tolist()
    writer.write(Path("instances.json"))
    Path("images/damaged.jpg").write_bytes(b"damaged")
    counts = cocoseg.ImageCounts(list(NAMES), confusions, dict.fromkeys(confusions, "hash"))
    for run in ("first", "second"):
        Path(run, "metrics/val_images.json").write_bytes(msgspec.json.encode(counts))

    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 8
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)

    with Image.open("overlay.png") as overlay:
        assert overlay.size == (500, 120)
    assert len(list(Path("predictions").iterdir())) == len(list(Path("masks").iterdir())) == 3
    scores = names["scores"]
    assert isinstance(scores, Mapping)
    assert 0 < scores["miou"] < 1
    (image,) = cocoseg.read_instances(Path("predictions.json")).instances.images
    assert (image.file_name, image.width, image.height) == ("image.jpg", 500, 120)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [str(NAMES), "cpu"]
    assert printed[2].startswith("skipped: images/damaged.jpg is not ")
    assert printed[3:5] == ["3 6 0", "['red', 'blue']"]
    assert printed[-1].endswith("to +0.000, the same")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the project's own files, since a build writes beside them."""
    project, wheels = (tmp_path_factory.mktemp(name) for name in ("project", "wheels"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "cocoseg", project / "cocoseg", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", wheels, project], check=True)
    (path,) = wheels.iterdir()
    return path


def test_the_wheel_contains_all_data_files_and_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("cocoseg/")}
        info = f"cocoseg-{cocoseg.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cocoseg").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert any(name.endswith(".jinja") for name in files)
    assert packed == files
    assert "License-Expression: MIT" in metadata


def test_predict_works_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    save_model(tmp_path / "model.safetensors", *lively_model())
    Image.fromarray(blotches(60, 80)).save(tmp_path / "image.png")
    code = "import sys, cocoseg, cocoseg.cli; print(cocoseg.__file__); sys.exit(cocoseg.cli.main())"
    arguments = ["predict", "image.png", "--model", "model.safetensors", "--out", "out"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    first, line = result.stdout.splitlines()
    assert Path(first) == tmp_path / "site/cocoseg/__init__.py"
    assert line.startswith("image.png: background ")
    assert cocoseg.read_mask(tmp_path / "out/image_mask.png").shape == (60, 80)
