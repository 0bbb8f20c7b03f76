"""The command line: outputs, names of files, errors."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from cocoseg.cli import main
from cocoseg.core.errors import UserError
from cocoseg.core.labels import PALETTE, read_classes, read_mask
from cocoseg.export.onnx import write_onnx
from cocoseg.inference.predictor import load
from cocoseg.models.weights import save_model
from cocoseg.predictions import OutputFiles, name_outputs, write_predictions
from tests.exports import run_data_stages
from tests.networks import NAMES, blotches, lively_model

WITH_PROBABILITIES = OutputFiles(probabilities=True)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "model.safetensors"
    save_model(path, *lively_model())
    return path


def write_image(path: Path, height: int = 60, width: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blotches(height, width)).save(path)
    return path


def cocoseg(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process."""
    command = [sys.executable, "-m", "cocoseg.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def segment(
    inputs: list[Path], model: Path, out: Path, files: OutputFiles | None = None, **more: Any
) -> None:
    files = files or OutputFiles()
    write_predictions(inputs, model, out, files, device="cpu", batch_size=2, **more)


def written(directory: Path) -> list[str]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return sorted(path.relative_to(directory).as_posix() for path in files)


def test_a_damaged_image_is_reported_and_the_others_are_segmented(
    tmp_path: Path, model_file: Path
) -> None:
    good = [write_image(tmp_path / "in/a.jpg"), write_image(tmp_path / "in/c.jpg")]
    damaged = tmp_path / "in/b.jpg"
    damaged.write_bytes(good[0].read_bytes()[:700])
    result = cocoseg("predict", tmp_path / "in", "--model", model_file, "--out", tmp_path / "out")
    assert result.returncode == 1
    first, last = result.stderr.splitlines()
    assert first.startswith(f"error: {damaged} is damaged")
    assert "remove" not in first
    assert last == "error: 1 of 3 images could not be read"
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in good]
    labels = read_mask(tmp_path / "out/a_mask.png")
    fraction = (labels == 0).mean()
    assert f"background {fraction:.1%}, red " in lines[0]
    names = [f"{stem}_{kind}" for stem in "ac" for kind in ("mask.png", "overlay.jpg")]
    assert written(tmp_path / "out") == names


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx"])
def test_a_missing_model_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} not found: .*`dvc repro \w+`"):
        segment([write_image(tmp_path / "a.jpg")], tmp_path / name, tmp_path)


def test_mask_overlay_and_probabilities_have_the_size_of_the_image(
    tmp_path: Path, model_file: Path
) -> None:
    segment([write_image(tmp_path / "a.png", 131, 132)], model_file, tmp_path, WITH_PROBABILITIES)
    labels = read_mask(tmp_path / "a_mask.png")
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


def test_a_second_run_overwrites_outputs_and_does_not_read_them_as_images(
    tmp_path: Path, model_file: Path
) -> None:
    write_image(tmp_path / "a.png")
    for _ in range(2):
        segment([tmp_path], model_file, tmp_path)
        assert written(tmp_path) == ["a.png", "a_mask.png", "a_overlay.jpg"]


def test_an_output_directory_that_is_a_file_is_an_error(tmp_path: Path, model_file: Path) -> None:
    image = write_image(tmp_path / "a.png")
    for out in (image, image / "out"):
        with pytest.raises(UserError, match=r"--out .*: a file is in the place of this directory"):
            segment([image], model_file, out)


def test_outputs_have_unique_names(tmp_path: Path) -> None:
    paths = [
        write_image(tmp_path / name)
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


def test_directories_are_searched_recursively_and_their_structure_is_kept(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "a.jpeg",
        "c.jfif",
        "sub/a.webp",
        "notes.txt",
        ".hidden.png",
        ".git/a.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = name_outputs([tmp_path, tmp_path / "sub/a.webp"], Path("out"))
    assert {path.relative_to(tmp_path).as_posix(): str(name) for path, name in names.items()} == {
        "a.jpeg": str(Path("out/a")),
        "b.JPG": str(Path("out/b")),
        "c.jfif": str(Path("out/c")),
        "sub/a.webp": str(Path("out/sub/a")),
    }


def test_the_pipeline_paints_the_same_masks_from_the_coco_file_of_predictions(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "in/a.png", 31, 45)
    write_image(tmp_path / "in/sub/b.jpg")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(blotches(40, 70)).save(tmp_path / "in/rotated.jpg", exif=rotated)
    segment([tmp_path / "in"], model_file, tmp_path / "out", coco=tmp_path / "out.json")
    pair = {"annotations": str(tmp_path / "out.json"), "images": str(tmp_path / "in")}
    run_data_stages(tmp_path, {"download.files.pairs": [pair]}, monkeypatch)
    assert read_classes(Path("data/classes.json")) == list(NAMES[1:])
    for stem, prediction in {"a": "a", "sub+b": "sub/b", "rotated": "rotated"}.items():
        labels = read_mask(tmp_path / f"data/masks/{stem}.png")
        assert np.array_equal(labels, read_mask(tmp_path / f"out/{prediction}_mask.png"))


def test_the_polygons_of_the_coco_file_cover_the_same_pixels(
    tmp_path: Path, model_file: Path
) -> None:
    image = write_image(tmp_path / "a.png", 31, 45)
    file = tmp_path / "out.json"
    segment([image], model_file, tmp_path / "out", coco=file, coco_format="polygons")
    labels = np.zeros((31, 45), np.uint8)
    for entry in json.loads(file.read_text())["annotations"]:
        assert isinstance(entry["segmentation"], list)
        pixels = coco_mask.decode(
            coco_mask.merge(coco_mask.frPyObjects(entry["segmentation"], 31, 45))
        )
        labels[pixels > 0] = entry["category_id"]
    assert labels.any()
    assert np.array_equal(labels, read_mask(tmp_path / "out/a_mask.png"))


def test_gray_masks_are_label_files_without_a_palette(tmp_path: Path, model_file: Path) -> None:
    image = write_image(tmp_path / "a.png")
    segment([image], model_file, tmp_path / "palette")
    segment([image], model_file, tmp_path / "gray", OutputFiles(gray=True))
    with Image.open(tmp_path / "gray/a_mask.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), read_mask(tmp_path / "palette/a_mask.png"))


def test_json_lines_name_the_outputs_and_errors(tmp_path: Path, model_file: Path) -> None:
    good, damaged = write_image(tmp_path / "in/a.jpg"), tmp_path / "in/b.jpg"
    damaged.write_bytes(good.read_bytes()[:700])
    out = tmp_path / "out"
    arguments = ["--model", model_file, "--out", out, "--json", "--no-overlay", "--probabilities"]
    result = cocoseg("predict", good, damaged, *arguments, "--coco", out / "coco.json")
    assert result.returncode == 1
    lines = {line["image"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert set(lines) == {str(good), str(damaged)}
    assert lines[str(damaged)]["error"].startswith(f"{damaged} is damaged")
    line = lines[str(good)]
    assert list(line) == ["image", "mask", "probabilities", "fractions"]
    assert written(out) == ["a_mask.png", "a_probabilities.npz", "coco.json"]
    labels = read_mask(Path(line["mask"]))
    expected = {name: (labels == label).mean() for label, name in enumerate(NAMES)}
    assert line["fractions"] == pytest.approx(expected)


def test_masks_and_overlays_can_be_left_out(tmp_path: Path, model_file: Path) -> None:
    image = write_image(tmp_path / "a.png")
    segment([image], model_file, tmp_path / "masks", OutputFiles(overlay=False))
    segment([image], model_file, tmp_path / "overlays", OutputFiles(mask=False))
    assert written(tmp_path / "masks") == ["a_mask.png"]
    assert written(tmp_path / "overlays") == ["a_overlay.jpg"]


def test_a_legend_is_added_below_the_overlay(tmp_path: Path, model_file: Path) -> None:
    image = write_image(tmp_path / "a.png", 600, 800)
    segment([image], model_file, tmp_path / "plain")
    segment([image], model_file, tmp_path / "legend", OutputFiles(legend=True))
    with (
        Image.open(tmp_path / "plain/a_overlay.jpg") as plain,
        Image.open(tmp_path / "legend/a_overlay.jpg") as explained,
    ):
        assert explained.width == 800
        assert 610 < explained.height < 700
        above = np.asarray(explained.crop((0, 0, 800, 580))).astype(int)
        assert np.array_equal(above, np.asarray(plain.crop((0, 0, 800, 580))))
        below = np.asarray(explained.crop((0, 600, *explained.size))).astype(int)
    for color in PALETTE[1:3].tolist():  # both classes of the model
        assert (np.abs(below - color).max(axis=2) < 40).any()


def test_views_change_the_mask_like_those_of_the_evaluation(
    tmp_path: Path, model_file: Path
) -> None:
    image = write_image(tmp_path / "a.png", 120, 160)
    options = ["--model", model_file, "--device", "cpu", "--out", tmp_path / "out"]
    result = cocoseg("predict", image, *options, "--flip", "--scales", "0.5", "1.5")
    assert result.returncode == 0, result.stderr
    expected = load(model_file, "cpu").predict(image, flip=True, scales=[0.5, 1.5])
    assert np.array_equal(read_mask(tmp_path / "out/a_mask.png"), expected.labels)


def test_file_names_in_the_coco_file_are_relative_to_the_deepest_common_directory(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "above.png")
    write_image(tmp_path / "here/photo.png")
    monkeypatch.chdir(tmp_path / "here")
    segment([Path("../above.png"), Path("photo.png")], model_file, Path("out"), coco=Path("o.json"))
    images = json.loads(Path("o.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["above.png", "here/photo.png"]


def test_a_file_name_that_is_not_utf8_is_printed_with_escapes(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")  # strict, unlike the C locale
    path = write_image(tmp_path / "plain.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    result = cocoseg("predict", path, "--model", model_file, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "\\udcff.png: " in result.stdout


def test_a_directory_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no images"):
        name_outputs([tmp_path], Path("out"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg", "--coco-format", "voc"], "--coco-format: invalid choice: 'voc'"),
        (["a.jpg", "--batch-size", "0"], "--batch-size: expected a positive integer, got '0'"),
        (
            ["a.jpg", "--device", "gpu"],
            "--device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'",
        ),
        (
            ["https://example.com/a.jpg"],
            "https://example.com/a.jpg is a URL: download the file and pass its path",
        ),
        (
            ["a.jpg", "--model", "HTTPS://example.com/m.onnx"],
            "HTTPS://example.com/m.onnx is a URL: download the file and pass its path",
        ),
        (["a.jpg", "--scales", "0"], "--scales: expected a number from 0.1 to 10, got '0'"),
        (["--scales", "1", "a.jpg"], "--scales: expected a number from 0.1 to 10, got 'a.jpg'"),
        ([], "the following arguments are required: IMAGE_OR_DIRECTORY"),
        *(
            (["a.jpg", f"--tiles={side}"], f"expected full or an integer from 32, got '{side}'")
            for side in ("31", "0", "half", "-5", "1.5")
        ),
    ],
)
def test_wrong_arguments_are_refused_with_the_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", *arguments])
    printed = capsys.readouterr().err
    assert printed.startswith("usage: cocoseg predict")
    assert message in printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "new_name"),
    [
        (["suspects", "fold-*"], "cocoseg label-errors"),
        (["compare", "main", "more", "--same-truth"], "--same-ground-truth"),
    ],
)
def test_names_of_earlier_versions_are_one_line_with_the_new_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str], new_name: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert new_name in line and any(argument in line for argument in arguments)


@pytest.mark.parametrize(
    "command", ["predict", "check", "compare", "runs", "label-errors", "search"]
)
def test_help_fits_a_terminal_and_has_examples_that_parse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    examples = re.findall(r"^  cocoseg (.*)", printed, re.MULTILINE)
    assert len(examples) >= 2
    run: list[str] = []
    monkeypatch.setattr("cocoseg.cli.run_stage", lambda main, figures: run.append(command))
    for example in examples:
        main(shlex.split(example))
    assert len(run) == len(examples)


@pytest.mark.parametrize("model", ["model.safetensors", "model.onnx"])
def test_a_large_image_is_segmented_in_tiles(tmp_path: Path, model_file: Path, model: str) -> None:
    """The command line runs one kind of model, its function the other."""
    write_image(tmp_path / "in/large.jpg", 200, 340)
    write_image(tmp_path / "in/small.jpg", 50, 60)
    tiled, coco = tmp_path / "tiled", tmp_path / "coco.json"
    if model.endswith("onnx"):
        path = tmp_path / model
        write_onnx(path, *lively_model(), opset=18)
        segment([tmp_path / "in"], path, tiled, WITH_PROBABILITIES, coco=coco, tiles="full")
    else:
        path = model_file
        options = ["--model", path, "--device", "cpu", "--probabilities", "--batch-size", "3"]
        options += ["--out", tiled, "--coco", coco, "--tiles", "full"]
        result = cocoseg("predict", tmp_path / "in", *options)
        assert result.returncode == 0, result.stderr
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) > 0
    segment([tmp_path / "in"], path, tmp_path / "whole", WITH_PROBABILITIES)
    assert written(tmp_path / "tiled") == written(tmp_path / "whole")

    def differing(name: str) -> float:
        tiled, whole = (
            read_mask(tmp_path / directory / f"{name}_mask.png") for directory in ("tiled", "whole")
        )
        with np.load(tmp_path / "tiled" / f"{name}_probabilities.npz") as content:
            highest = content["probabilities"].argmax(axis=0)
        assert (highest == tiled).mean() > 0.99
        return float((tiled != whole).mean())

    assert differing("small") == 0
    assert differing("large") > 0.01
