"""The command `cocoseg`: label photos with a trained model, compare and list runs, audit labels.

cocoseg predict holiday/ --model models/model.safetensors --out predictions
cocoseg compare main more
cocoseg runs
cocoseg suspects 'fold-*'
"""

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file, free_name, write_text
from cocoseg.core.labels import write_mask
from cocoseg.core.stage import run_stage

if TYPE_CHECKING:  # it imports PyTorch
    from cocoseg.inference.tiling import Tiles

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
"""Files with these are taken from folders; a file that is named itself may have any ending."""

_DESCRIPTION = """\
Say of each pixel of a photo which class it shows. For a photo NAME.jpg,

  NAME_labels.png         is a palette image: 0 is background, then the classes
  NAME_overlay.jpg        is the photo with the classes over it, to look at
  NAME_probabilities.npz  (with --probabilities) holds `probabilities`, float16
                          (classes, height, width), and the names `classes`

and a line says which share of the photo each class takes. All have the photo's
own size, turned as its EXIF says.

Folders are searched with the folders in them; these are kept in the output. Of
two photos that would get the same NAME, the second becomes NAME-2. A photo that
cannot be read is named, the others go on, and the exit status is 1."""

_COMPARE = """\
Compare the trained models of B (and C …) with that of A, on the test images
that both score, image by image. A, B, … are commits, branches, tags or
experiments, as `dvc metrics diff` takes them, or `workspace`; a pattern such
as 'seed-*' makes a group of all experiments, branches and tags of that name:
runs with several seeds, or folds. Nothing is checked out."""

_LABEL_ERRORS = """\
List the annotations that the models of revisions disagree with most, each on
its own test images, ranked together; without a REVISION those of the workspace.
With one run for each fold (split.fold) every image is a test image once. A
REVISION is what `cocoseg compare` takes, a pattern such as 'fold-*' as well.
Rows of the CSV file can be copied into the file that filter.exclude names."""

_EXAMPLES = """\
examples:
  cocoseg predict photo.jpg
  cocoseg predict holiday/ more/*.png --out labelled --batch-size 32
  cocoseg predict photo.jpg --model models/onnx/int8.onnx --probabilities
  cocoseg predict panorama.jpg --tiles full
  cocoseg predict unlabelled/ --coco prelabels.json

in Python:
  cocoseg.load("models/model.safetensors").predict("photo.jpg").labels"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with `arguments`, or those of the process."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file may have any bytes as its name
    run_stage(lambda: options.run(options), None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cocoseg", description="Use, compare and list models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_compare(commands)
    _add_runs(commands)
    _add_label_errors(commands)
    return parser


def _add_predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "predict",
        help="label photos: a label map, an overlay and the share of each class",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE_OR_DIRECTORY")
    add(
        "--model",
        type=Path,
        default=Path("models/model.safetensors"),
        metavar="FILE",
        help="model.safetensors or an ONNX file; it knows its classes (default: %(default)s)",
    )
    add(
        "--out",
        type=Path,
        default=Path("predictions"),
        metavar="DIR",
        help="where the results go; files of earlier runs are replaced (default: %(default)s)",
    )
    add(
        "--coco",
        type=Path,
        metavar="FILE",
        help="write all predictions as one COCO file as well, for a labelling tool",
    )
    add("--probabilities", action="store_true", help="write the probability of each class as well")
    add(
        "--tiles",
        type=_tiles,
        metavar="SIDE",
        help="see large photos in overlapping tiles of SIDE pixels as well as whole, to find small "
        "things; full: of the size that the model takes, so that no pixel is lost",
    )
    add(
        "--device",
        type=_device,
        default="auto",
        help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=_positive,
        default=8,
        metavar="N",
        help="photos of one shape, or tiles, at a time (default: %(default)s)",
    )
    parser.set_defaults(
        run=lambda options: predict(
            options.images,
            options.model,
            options.out,
            probabilities=options.probabilities,
            coco=options.coco,
            device=options.device,
            batch_size=options.batch_size,
            tiles=options.tiles,
        )
    )


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="say which of several revisions is better, and how sure that is",
        description=_COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("first", metavar="A")
    add("others", nargs="+", metavar="B")
    add("--same-ground-truth", action="store_true", help="score all against the true labels of A")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--md", action="store_true", help="print Markdown, for a pull request")
    formats.add_argument("--json", action="store_true", help="print JSON")
    add("--html", type=Path, metavar="FILE", help="write a page with the images that differ most")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    # DVC takes a second to import; --help and wrong arguments are answered without it.
    from cocoseg.experiments.compare import (
        as_json,
        as_markdown,
        as_page,
        as_text,
        compare_revisions,
    )

    results = compare_revisions(
        [options.first, *options.others], same_ground_truth=options.same_ground_truth
    )
    if options.html:
        write_text(options.html, as_page(results))
    if options.json:
        print(json.dumps(as_json(results), indent=2, ensure_ascii=False))
    else:
        print(as_markdown(results) if options.md else as_text(results))


def _add_runs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "runs", help="list experiments: what was changed, mean IoU and its interval"
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="REVISION",
        help="commits, branches, tags, experiments, patterns or workspace "
        "(default: the experiments that started from the present commit)",
    )
    parser.set_defaults(run=_runs)


def _runs(options: argparse.Namespace) -> None:
    from cocoseg.experiments.runs import runs_table

    print(runs_table(options.names))


def _add_label_errors(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "label-errors",
        help="list the annotations that models disagree with most, for a person to judge",
        description=_LABEL_ERRORS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="REVISION", default=["workspace"])
    add("--first", type=_positive, default=20, metavar="N", help="how many (default: %(default)s)")
    add("--csv", type=Path, metavar="FILE", help="write all as `metrics/suspects.csv` has them")
    add("--html", type=Path, metavar="FILE", help="write a page with pictures of the first N")
    parser.set_defaults(run=_label_errors)


def _label_errors(options: argparse.Namespace) -> None:
    from cocoseg.evaluation.label_errors import write_label_errors
    from cocoseg.experiments.runs import label_errors_page, label_errors_table, rank_together

    found = rank_together(options.names)
    first = found[: options.first]
    if options.csv:
        with atomic_file(options.csv) as temporary:
            write_label_errors(temporary, [label_error for label_error, _ in found])
    if options.html:
        write_text(options.html, label_errors_page(first))
    print(label_errors_table(first))


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise argparse.ArgumentTypeError(f"{name!r} is none of auto, cpu, cuda, cuda:N, mps")
    return name


def _tiles(text: str) -> "Tiles":
    if text == "full":
        return "full"
    if not text.isascii() or not text.isdigit() or int(text) < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is neither full nor a number of 32 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def predict(
    inputs: Iterable[Path],
    model: Path,
    out: Path,
    *,
    probabilities: bool,
    device: str,
    batch_size: int,
    coco: Path | None = None,
    tiles: "Tiles | None" = None,
) -> None:
    """Label the photos and those in folders, write files below `out`, print a line for each photo.

    With `coco` all predictions are written there as well; its file names are paths below the
    deepest folder that holds all `inputs`. Raises UserError before any photo is read when the model
    cannot be loaded or a folder has no photos, and at the end when some photos could not be read.
    """
    # PyTorch takes seconds to import; --help and wrong arguments are answered without it.
    from cocoseg.coco.writer import CocoWriter
    from cocoseg.inference.predictor import load

    inputs = list(inputs)
    names = name_outputs(inputs, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out {out} is, or lies in, a file that is no folder") from None
    predictor = load(model, device)
    predictions = CocoWriter(predictor.card.classes)
    base = os.path.commonpath([os.path.normpath(_directory_of(path).absolute()) for path in inputs])
    failed = 0
    results = predictor.predict_many(names, batch_size, tiles)
    for photo, result in tqdm(
        results, total=len(names), unit="image", disable=None if len(names) > 1 else True
    ):
        if isinstance(result, UserError):
            failed += 1
            tqdm.write(f"error: {result}", file=sys.stderr)
            continue
        name = names[photo]
        with atomic_file(name.with_name(f"{name.name}_labels.png")) as temporary:
            write_mask(temporary, result.labels)
        with atomic_file(name.with_name(f"{name.name}_overlay.jpg")) as temporary:
            result.overlay().save(temporary, format="JPEG", quality=90)
        if coco:
            predictions.add(Path(os.path.relpath(photo, base)).as_posix(), result.labels)
        if probabilities:
            with (
                atomic_file(name.with_name(f"{name.name}_probabilities.npz")) as temporary,
                temporary.open("wb") as file,
            ):
                np.savez(file, probabilities=result.probabilities(), classes=result.classes)
        fractions = ", ".join(
            f"{kind} {fraction:.1%}" for kind, fraction in result.fractions().items()
        )
        renamed = f" (written as {name.name})" if name.name != photo.stem else ""
        tqdm.write(f"{photo}: {fractions}{renamed}")
    if coco:
        predictions.write(coco)
        print(f"{coco}: the predictions for photos below {base}")
    if failed:
        raise UserError(f"{failed} of {len(names)} photos could not be read")


def name_outputs(inputs: Iterable[Path], out: Path) -> dict[Path, Path]:
    """Every photo with the path, without ending, of what is written about it below `out`.

    A photo that is given twice is taken once. Outputs of an earlier run, below `out`, are no
    photos. Raises UserError for a folder without photos.
    """
    names: dict[Path, Path] = {}
    seen: set[Path] = set()
    taken: set[str] = set()
    for path in inputs:
        directory = _directory_of(path)
        for photo in _photos_in(path, out) if path.is_dir() else [path]:
            if photo.resolve() in seen:
                continue
            seen.add(photo.resolve())
            stem = photo.relative_to(directory).with_suffix("").as_posix()
            names[photo] = out / free_name(stem, taken)
    return names


def _directory_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _photos_in(directory: Path, out: Path) -> list[Path]:
    photos = [
        path
        for path in sorted(directory.rglob("*"))
        if path.suffix.lower() in EXTENSIONS
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
        and not (
            path.name.endswith(("_labels.png", "_overlay.jpg"))
            and path.resolve().is_relative_to(out.resolve())
        )
        and path.is_file()
    ]
    if not photos:
        raise UserError(f"{directory} has no photos ({', '.join(EXTENSIONS)}) in it")
    return photos


if __name__ == "__main__":
    main()
