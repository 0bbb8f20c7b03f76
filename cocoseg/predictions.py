"""Prediction of image files: masks, overlays, probabilities and a COCO file.

write_predictions([Path("photo.jpg"), Path("holiday")], Path("model.safetensors"), Path("out"))
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cocoseg.coco.writer import CocoWriter
from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file, free_name
from cocoseg.core.labels import write_mask
from cocoseg.core.parallel import in_threads
from cocoseg.inference.predictor import READ_AHEAD, THREADS, Prediction, load
from cocoseg.inference.tiling import Tiles

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm"),
)
"""The extensions of images in directories. A file that is named directly may have any extension."""


@dataclass(frozen=True)
class OutputFiles:
    """Which files to write for each image.

    Attributes:
        mask: the mask.
        overlay: the image with the mask over it.
        probabilities: the probability of each class.
        gray: write the mask as a grayscale image of labels, without a palette.
        legend: add the names and colors of the classes below the overlay.
    """

    mask: bool = True
    overlay: bool = True
    probabilities: bool = False
    gray: bool = False
    legend: bool = False


DEFAULT_FILES = OutputFiles()


def write_predictions(
    inputs: Iterable[Path],
    model: Path,
    out: Path,
    files: OutputFiles = DEFAULT_FILES,
    *,
    device: str = "auto",
    batch_size: int = 8,
    tiles: Tiles | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    coco: Path | None = None,
    coco_format: Literal["rle", "polygons"] = "rle",
    as_json: bool = False,
) -> None:
    """Segment images, write the outputs, and print a line for each image.

    Threads read the next images and write the previous ones while the network runs.

    Args:
        inputs: images, and directories to search for images.
        model: the model file.
        out: the directory of the outputs.
        files: the files to write for each image.
        device: as in `cocoseg.load`.
        batch_size: as in `Predictor.predict_many`.
        tiles: as in `Predictor.predict`.
        flip: as in `Predictor.predict`.
        scales: as in `Predictor.predict`.
        coco: a COCO file to write. File names in it are relative to the deepest directory that
            contains all inputs.
        coco_format: the form of the segmentations in `coco`.
        as_json: print each line as a JSON object.

    Raises:
        UserError: the model cannot be loaded or a directory contains no images; or, after all
            others are processed, some images cannot be read.
    """
    inputs = list(inputs)
    outputs = name_outputs(inputs, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out {out}: a file is in the place of this directory") from None
    predictor = load(model, device)
    annotations = CocoWriter(predictor.classes, coco_format)
    base = os.path.commonpath([os.path.normpath(_directory_of(path).absolute()) for path in inputs])
    results = predictor.predict_many(outputs, batch_size, tiles, flip=flip, scales=scales)

    def with_probabilities() -> Iterator[_Predicted]:
        for image, result in results:
            probabilities = None
            if isinstance(result, Prediction):
                if files.probabilities:
                    probabilities = result.probabilities()
                result = replace(result, logits=_no_logits)  # those of tiles take up to 200 MB
            yield _Predicted(image, outputs[image], result, probabilities)

    def write(predicted: _Predicted) -> tuple[_Predicted, dict[str, str]]:
        return predicted, predicted.write(files)

    written = in_threads(
        write, with_probabilities(), THREADS, size=_Predicted.bytes, max_size=READ_AHEAD
    )
    failed = 0
    hide_bar = None if len(outputs) > 1 else True  # None: hide it unless stderr is a terminal
    for predicted, paths in tqdm(written, total=len(outputs), unit="image", disable=hide_bar):
        if isinstance(predicted.result, UserError):
            failed += 1
            tqdm.write(f"error: {predicted.result}", file=sys.stderr)
        elif coco:
            name = Path(os.path.relpath(predicted.image, base)).as_posix()
            annotations.add(name, predicted.result.labels)
        if line := predicted.json_line(paths) if as_json else predicted.text_line():
            tqdm.write(line)
    if coco:
        annotations.write(coco)
        told = f"{coco}: predictions in COCO format, file names relative to {base}"
        print(told, file=sys.stderr if as_json else sys.stdout)
    if failed:
        raise UserError(f"{failed} of {len(outputs)} images could not be read")


def _no_logits() -> Iterator[tuple[slice, Tensor]]:
    raise NotImplementedError("the logits are not kept")


@dataclass(frozen=True)
class _Predicted:
    """An image and its prediction, or the error.

    `output` is the path of the outputs without `_mask.png` and so on.
    """

    image: Path
    output: Path
    result: Prediction | UserError
    probabilities: NDArray[np.float16] | None

    def bytes(self) -> int:
        if isinstance(self.result, UserError):
            return 0
        probabilities = 0 if self.probabilities is None else self.probabilities.nbytes
        return self.result.image.nbytes + self.result.labels.nbytes + probabilities

    def write(self, files: OutputFiles) -> dict[str, str]:
        """Write the files; return their paths by kind."""
        if isinstance(self.result, UserError):
            return {}
        paths: dict[str, str] = {}
        if files.mask:
            with self._file(paths, "mask", "png") as temporary:
                if files.gray:
                    Image.fromarray(self.result.labels).save(temporary, format="PNG")
                else:
                    write_mask(temporary, self.result.labels)
        if files.overlay:
            with self._file(paths, "overlay", "jpg") as temporary:
                overlay = self.result.overlay(legend=files.legend)
                overlay.save(temporary, format="JPEG", quality=90)
        if self.probabilities is not None:
            with (
                self._file(paths, "probabilities", "npz") as temporary,
                temporary.open("wb") as file,
            ):
                np.savez(file, probabilities=self.probabilities, classes=self.result.classes)
        return paths

    @contextmanager
    def _file(self, paths: dict[str, str], kind: str, extension: str) -> Iterator[Path]:
        path = self.output.with_name(f"{self.output.name}_{kind}.{extension}")
        with atomic_file(path) as temporary:
            yield temporary
        paths[kind] = str(path)

    def text_line(self) -> str | None:
        if isinstance(self.result, UserError):
            return None
        fractions = self.result.fractions().items()
        listed = ", ".join(f"{name} {fraction:.1%}" for name, fraction in fractions)
        renamed = self.output.name != self.image.stem
        return f"{self.image}: {listed}" + (f" (written as {self.output.name})" if renamed else "")

    def json_line(self, paths: Mapping[str, str]) -> str:
        line: dict[str, Any] = {"image": str(self.image)}
        if isinstance(self.result, UserError):
            line["error"] = str(self.result)
        else:
            line |= {**paths, "fractions": self.result.fractions()}
        return json.dumps(line)


def name_outputs(inputs: Iterable[Path], out: Path) -> dict[Path, Path]:
    """Choose a unique output path for each image.

    Args:
        inputs: images and directories. Duplicates are dropped, and so are outputs of earlier runs
            in `out`.
        out: the directory of the outputs.

    Returns:
        The output path, without an extension, of each image.

    Raises:
        UserError: a directory contains no images.
    """
    outputs: dict[Path, Path] = {}
    seen: set[Path] = set()
    taken: set[str] = set()
    for path in inputs:
        directory = _directory_of(path)
        for image in _images_in(path, out) if path.is_dir() else [path]:
            if image.resolve() in seen:
                continue
            seen.add(image.resolve())
            stem = image.relative_to(directory).with_suffix("").as_posix()
            outputs[image] = out / free_name(stem, taken)
    return outputs


def _directory_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _images_in(directory: Path, out: Path) -> list[Path]:
    images = [
        path
        for path in sorted(directory.rglob("*"))
        if path.suffix.lower() in EXTENSIONS
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
        and not (
            path.name.endswith(("_mask.png", "_overlay.jpg"))
            and path.resolve().is_relative_to(out.resolve())
        )
        and path.is_file()
    ]
    if not images:
        raise UserError(f"{directory} contains no images ({', '.join(EXTENSIONS)})")
    return images
