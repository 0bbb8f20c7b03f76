"""The command: what it writes and prints, how it names files, and how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cocoseg.cli import main, name_outputs, predict
from cocoseg.core.errors import UserError
from cocoseg.core.labels import read_classes, read_mask
from cocoseg.export.onnx import write_onnx
from cocoseg.models.weights import save_model
from tests.exports import run_data_stages
from tests.networks import NAMES, blotches, lively_model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "model.safetensors"
    save_model(path, *lively_model())
    return path


def photo(path: Path, height: int = 60, width: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blotches(height, width)).save(path)
    return path


def cocoseg(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the command as a user does."""
    command = [sys.executable, "-m", "cocoseg.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def label(
    inputs: list[Path], model: Path, out: Path, probabilities: bool = False, **more: Any
) -> None:
    predict(inputs, model, out, probabilities=probabilities, device="cpu", batch_size=2, **more)


def written(directory: Path) -> list[str]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return sorted(path.relative_to(directory).as_posix() for path in files)


def test_a_damaged_photo_is_named_the_others_go_on_and_the_status_is_one(
    tmp_path: Path, model_file: Path
) -> None:
    good = [photo(tmp_path / "in/a.jpg"), photo(tmp_path / "in/c.jpg")]
    damaged = tmp_path / "in/b.jpg"
    damaged.write_bytes(good[0].read_bytes()[:700])
    result = cocoseg("predict", tmp_path / "in", "--model", model_file, "--out", tmp_path / "out")
    assert result.returncode == 1
    first, last = result.stderr.splitlines()
    assert first.startswith(f"error: {damaged}: is damaged")
    assert "remove" not in first
    assert last == "error: 1 of 3 photos could not be read"
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in good]
    labels = read_mask(tmp_path / "out/a_labels.png")
    fraction = (labels == 0).mean()
    assert f"background {fraction:.1%}, red " in lines[0]
    names = [f"{stem}_{kind}" for stem in "ac" for kind in ("labels.png", "overlay.jpg")]
    assert written(tmp_path / "out") == names


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_missing_model_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} not found: .*`dvc repro \w+`"):
        label([photo(tmp_path / "a.jpg")], tmp_path / name, tmp_path)


def test_labels_overlay_and_probabilities_have_the_photos_own_size(
    tmp_path: Path, model_file: Path
) -> None:
    label([photo(tmp_path / "a.png", 131, 132)], model_file, tmp_path, probabilities=True)
    labels = read_mask(tmp_path / "a_labels.png")
    assert labels.shape == (131, 132)
    with np.load(tmp_path / "a_probabilities.npz") as file:
        assert tuple(file["classes"]) == NAMES
        assert file["probabilities"].dtype == np.float16
        assert file["probabilities"].shape == (3, 131, 132)
    with Image.open(tmp_path / "a_overlay.jpg") as overlay, Image.open(tmp_path / "a.png") as image:
        assert overlay.size == image.size
        difference = np.abs(np.asarray(overlay).astype(int) - np.asarray(image))
    clear = labels == 0
    assert difference[~clear].mean() > 2 * difference[clear].mean() > 0


def test_a_second_run_replaces_the_files_of_the_first_and_takes_none_for_photos(
    tmp_path: Path, model_file: Path
) -> None:
    photo(tmp_path / "a.png")
    for _ in range(2):
        label([tmp_path], model_file, tmp_path)
        assert written(tmp_path) == ["a.png", "a_labels.png", "a_overlay.jpg"]


def test_an_output_folder_that_is_a_file_is_one_line(tmp_path: Path, model_file: Path) -> None:
    image = photo(tmp_path / "a.png")
    for out in (image, image / "out"):
        with pytest.raises(UserError, match=r"--out .* is, or lies in, a file"):
            label([image], model_file, out)


def test_no_two_photos_are_written_to_the_same_name(tmp_path: Path) -> None:
    paths = [
        photo(tmp_path / name)
        for name in ("x/a.jpg", "x/a.png", "y/a.jpg", "y/A.png", "y/a-2.png", "y/sub/a.jpg")
    ]
    names = name_outputs([*paths, paths[0]], Path("out"))
    assert list(names) == paths
    assert [name.as_posix() for name in names.values()] == [
        "out/a",
        "out/a-2",
        "out/a-3",
        "out/A-4",
        "out/a-2-2",
        "out/a-5",
    ]


def test_a_folder_is_searched_with_those_in_it_and_they_are_kept(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.jpeg", "sub/a.webp", "notes.txt", ".hidden.png", ".git/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = name_outputs([tmp_path, tmp_path / "sub/a.webp"], Path("out"))
    assert {path.relative_to(tmp_path).as_posix(): str(name) for path, name in names.items()} == {
        "a.jpeg": str(Path("out/a")),
        "b.JPG": str(Path("out/b")),
        "sub/a.webp": str(Path("out/sub/a")),
    }


def test_predictions_as_a_coco_file_come_back_as_the_same_pixels(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in/a.png", 31, 45)
    photo(tmp_path / "in/sub/b.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(blotches(40, 70)).save(tmp_path / "in/turned.jpg", exif=turned)
    predict(
        [tmp_path / "in"],
        model_file,
        tmp_path / "out",
        probabilities=False,
        device="cpu",
        batch_size=2,
        coco=tmp_path / "out.json",
    )
    pair = {"annotations": str(tmp_path / "out.json"), "images": str(tmp_path / "in")}
    run_data_stages(tmp_path, {"download.files.pairs": [pair]}, monkeypatch)
    assert read_classes(Path("data/classes.json")) == list(NAMES[1:])
    for stem, prediction in {"a": "a", "sub+b": "sub/b", "turned": "turned"}.items():
        labels = read_mask(tmp_path / f"data/masks/{stem}.png")
        assert np.array_equal(labels, read_mask(tmp_path / f"out/{prediction}_labels.png"))


def test_names_in_a_coco_file_lead_down_from_the_deepest_common_folder(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "above.png")
    photo(tmp_path / "here/photo.png")
    monkeypatch.chdir(tmp_path / "here")
    label([Path("../above.png"), Path("photo.png")], model_file, Path("out"), coco=Path("o.json"))
    images = json.loads(Path("o.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["above.png", "here/photo.png"]


def test_a_file_name_that_is_no_utf8_is_printed_somehow(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")  # strict, as on a terminal of any language
    odd = photo(tmp_path / "plain.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    result = cocoseg("predict", odd, "--model", model_file, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "\\udcff.png: " in result.stdout


def test_a_folder_without_photos_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no photos"):
        name_outputs([tmp_path], Path("out"))


@pytest.mark.parametrize("wrong", [["--batch-size", "0"], ["--device", "gpu"], []])
def test_wrong_arguments_are_refused_with_the_usage(
    capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    photos = ["a.jpg"] if wrong else []
    with pytest.raises(SystemExit, match="2"):
        main(["predict", *photos, *wrong])
    said = capsys.readouterr().err
    assert said.startswith("usage: cocoseg predict")
    assert (wrong or ["PHOTO_OR_FOLDER"])[0] in said.splitlines()[-1]


def test_help_fits_a_terminal_and_shows_commands_to_copy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(["predict", "--help"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "cocoseg predict photo.jpg\n" in said


@pytest.mark.parametrize("model", ["model.safetensors", "model.onnx"])
def test_a_large_photo_is_labeled_in_tiles(tmp_path: Path, model_file: Path, model: str) -> None:
    """By the command with one kind of model, by its function with the other."""
    photo(tmp_path / "in/large.jpg", 200, 340)
    photo(tmp_path / "in/small.jpg", 50, 60)
    tiled, coco = tmp_path / "tiled", tmp_path / "coco.json"
    if model.endswith("onnx"):
        path = tmp_path / model
        write_onnx(path, *lively_model(), opset=18)
        label([tmp_path / "in"], path, tiled, probabilities=True, coco=coco, tiles="full")
    else:
        path = model_file
        options = ["--model", path, "--device", "cpu", "--probabilities", "--batch-size", "3"]
        options += ["--out", tiled, "--coco", coco, "--tiles", "full"]
        result = cocoseg("predict", tmp_path / "in", *options)
        assert result.returncode == 0, result.stderr
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) > 0
    label([tmp_path / "in"], path, tmp_path / "whole", probabilities=True)
    assert written(tmp_path / "tiled") == written(tmp_path / "whole")

    def differing(name: str) -> float:
        tiled, whole = (
            read_mask(tmp_path / directory / f"{name}_labels.png")
            for directory in ("tiled", "whole")
        )
        with np.load(tmp_path / "tiled" / f"{name}_probabilities.npz") as content:
            highest = content["probabilities"].argmax(axis=0)
        assert (highest == tiled).mean() > 0.99
        return float((tiled != whole).mean())

    assert differing("small") == 0
    assert differing("large") > 0.01


@pytest.mark.parametrize("side", ["31", "0", "half", "-5", "1.5"])
def test_a_tile_is_full_or_a_number_of_pixels(
    side: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "photo.jpg", f"--tiles={side}"])
    assert f"'{side}' is neither full nor a number of 32 or more" in capsys.readouterr().err
