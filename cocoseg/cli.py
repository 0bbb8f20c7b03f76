"""The command line: segment images, score models, check exports, compare runs, search parameters.

cocoseg predict photo.jpg holiday/ --out predictions
cocoseg evaluate ../other/models/model.safetensors
cocoseg check farm/annotations.json farm/images
cocoseg compare main 'seed-*'
cocoseg runs
cocoseg label-errors 'fold-*'
cocoseg search space.yaml --trials 30
"""

import argparse
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file, write_text
from cocoseg.core.stage import run_stage

if TYPE_CHECKING:  # imports PyTorch
    from cocoseg.inference.tiling import Tiles

_PREDICT = """\
Segment images. For each image NAME.jpg, this writes

  NAME_mask.png           the mask as a palette image: 0 is the background,
                          then the classes in the order of the model. Pillow
                          reads labels from it; OpenCV, scikit-image and imageio
                          read colors, unless --gray writes a grayscale image
  NAME_overlay.jpg        the image with the mask over it; --legend explains its
                          colors
  NAME_probabilities.npz  with --probabilities: the arrays `probabilities`,
                          float16 (classes, height, width), and `classes`

and prints the fraction of each class, or JSON with --json. Outputs have the
size of the image, in its EXIF orientation.

Directories are searched recursively; the outputs keep their structure. If two
images have the same NAME, the second becomes NAME-2. Unreadable images are
reported, the others are still processed, and the exit status is 1."""

_PREDICT_EXAMPLES = """\
examples:
  cocoseg predict photo.jpg
  cocoseg predict photo.jpg --model torchvision:lraspp_mobilenet_v3_large
  cocoseg predict holiday/ more/*.png --out predictions --batch-size 32
  cocoseg predict photo.jpg --model models/onnx/int8.onnx --probabilities
  cocoseg predict panorama.jpg --tiles full
  cocoseg predict unlabeled/ --coco predictions.json --coco-format polygons
  cocoseg predict holiday/ --json --no-overlay > predictions.jsonl

in Python:
  cocoseg.load("models/model.safetensors").predict("photo.jpg").labels"""

_CHECK = """\
Read an export of a labeling tool as the pipeline would, with the settings of
presets/own_data.yaml, and list kept and rejected entries. ANNOTATIONS is a
COCO file, IMAGES the directory of its images; both may be URLs. Images at URLs
are not fetched, so their files are not checked. No file is written. If nothing
is left to train on, the exit status is 1."""

_CHECK_EXAMPLES = """\
examples:
  cocoseg check ~/Downloads/farm/annotations.json ~/Downloads/farm/images
  cocoseg check result.json . --classes cow sheep"""

_EVALUATE = """\
Score a model on the data of this project. MODEL is model.safetensors or an ONNX
file, of this project or another one, or torchvision:NAME. Classes are matched
by name; a class that only the model or only the data has is named. The section
`evaluate` of params.yaml applies. No file of the project is written."""

_EVALUATE_EXAMPLES = """\
examples:
  cocoseg evaluate models/onnx/int8.onnx
  cocoseg evaluate ../other/models/model.safetensors --split val --json
  cocoseg evaluate torchvision:deeplabv3_resnet50"""

_COMPARE = """\
Compare the models of B (and C ...) with the model of A on the validation images
that both have in common. A, B, ... are commits, branches, tags, experiments or
`workspace`. A pattern such as 'seed-*' selects all experiments, branches and
tags that match as a group, such as runs with several seeds or folds. No file is
changed."""

_COMPARE_EXAMPLES = """\
examples:
  cocoseg compare main my-experiment
  cocoseg compare 'ten-*' 'fifteen-*'
  cocoseg compare main workspace --html comparison.html
  cocoseg compare main HEAD --md
  cocoseg compare main chosen --split test"""

_RUNS = """\
List runs with their validation mean IoU, its 95% interval and the parameters
that differ from HEAD, best first."""

_RUNS_EXAMPLES = """\
examples:
  cocoseg runs
  cocoseg runs 'seed-*' main"""

_LABEL_ERRORS = """\
Rank the annotations that contradict the models of one or more revisions. Each
model is compared with the annotations of its test images. Together, the runs of
all folds (split.fold) cover every image. To exclude annotations, copy rows of
the CSV file to the file that filter.exclude names."""

_LABEL_ERRORS_EXAMPLES = """\
examples:
  cocoseg label-errors
  cocoseg label-errors 'fold-*' --csv label_errors.csv --html label_errors.html"""

_SEARCH = """\
Search for better parameters of the training. SPACE.yaml maps keys to values to
try:

  train.lr: {low: 0.001, high: 0.02, log: true}
  train.batch_size: [4, 8, 16]

Each trial is an experiment NAME-1, NAME-2, ... that runs the stages up to
`train` in a temporary directory. Its score is the validation mean IoU; test
images are not scored. Optuna chooses the values by the earlier trials, and ends
trainings that are worse than the median. To continue an interrupted search,
rerun the command. To use several GPUs, start it several times; several machines
require --storage with the URL of a database."""

_SEARCH_EXAMPLES = """\
examples:
  cocoseg search space.yaml --trials 30
  cocoseg search space.yaml --trials 50 --html search.html
  cocoseg search space.yaml --storage postgresql+psycopg://user@host/optuna"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line with `arguments`, by default the arguments of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    run_stage(lambda: _run(given), None)


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    if renamed := _renamed(arguments):
        parser.exit(2, f"cocoseg: error: {renamed}\n")
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may contain any bytes
    options.run(options)


def _renamed(arguments: Sequence[str]) -> str | None:
    """Explain an argument of an earlier version."""
    if arguments[:1] == ["suspects"]:
        return "`cocoseg suspects` is now `cocoseg label-errors`"
    if arguments[:1] == ["compare"] and "--same-truth" in arguments:
        return "--same-truth is now --same-ground-truth"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cocoseg",
        description="Segment images, score models, check exports, compare runs, find label errors.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary, description, examples, add_arguments in (
        ("predict", "segment images", _PREDICT, _PREDICT_EXAMPLES, _add_predict),
        ("evaluate", "score any model", _EVALUATE, _EVALUATE_EXAMPLES, _add_evaluate),
        ("check", "check an export before training", _CHECK, _CHECK_EXAMPLES, _add_check),
        ("compare", "test which revision is better", _COMPARE, _COMPARE_EXAMPLES, _add_compare),
        ("runs", "list runs and their scores", _RUNS, _RUNS_EXAMPLES, _add_runs),
        (
            "label-errors",
            "rank annotations that contradict the models",
            _LABEL_ERRORS,
            _LABEL_ERRORS_EXAMPLES,
            _add_label_errors,
        ),
        ("search", "search for better parameters", _SEARCH, _SEARCH_EXAMPLES, _add_search),
    ):
        add_arguments(
            commands.add_parser(
                name,
                help=summary,
                description=description,
                epilog=examples,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", nargs="+", type=_local_path, metavar="IMAGE_OR_DIRECTORY")
    add(
        "--model",
        type=_local_path,
        default=Path("models/model.safetensors"),
        metavar="FILE",
        help="model.safetensors, an ONNX file, or torchvision:NAME for the COCO weights of a "
        "segmentation network of torchvision (default: %(default)s)",
    )
    add(
        "--out",
        type=Path,
        default=Path("predictions"),
        metavar="DIR",
        help="output directory; existing outputs are overwritten (default: %(default)s)",
    )
    add(
        "--coco",
        type=Path,
        metavar="FILE",
        help="also write all predictions to a COCO file, for labeling tools",
    )
    add(
        "--coco-format",
        choices=("rle", "polygons"),
        default="rle",
        help="one run-length encoding per class, or one polygon per connected region, for tools "
        "that read no run-length encodings, such as Label Studio (default: %(default)s)",
    )
    add(
        "--gray",
        action="store_true",
        help="write masks as grayscale images of labels, which scikit-image, imageio and OpenCV "
        "(cv2.IMREAD_GRAYSCALE) read as labels; image viewers show them almost black",
    )
    add(
        "--legend",
        action="store_true",
        help="add the names and colors of the classes below each overlay",
    )
    add("--no-mask", dest="mask", action="store_false", help="write no masks")
    add("--no-overlay", dest="overlay", action="store_false", help="write no overlays")
    add("--probabilities", action="store_true", help="also write the probability of each class")
    add(
        "--json",
        action="store_true",
        help="print a JSON object per image: `image`, the paths of its outputs and `fractions`, or "
        "`error`",
    )
    add(
        "--flip",
        action="store_true",
        help="average the probabilities of each image and its mirror image, as evaluate.flip does",
    )
    add(
        "--scales",
        nargs="+",
        type=_scale,
        default=(1.0,),
        metavar="SCALE",
        help="average the probabilities at these multiples of the input size of the model, as "
        "evaluate.scales does (default: 1)",
    )
    add(
        "--tiles",
        type=_tiles,
        metavar="SIDE",
        help="also predict large images in overlapping tiles, to find smaller objects; "
        "SIDE is the side of a tile in pixels of the image, or `full` for tiles of the input size "
        "of the model at the original resolution",
    )
    add(
        "--device",
        type=_device,
        default="auto",
        help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=_positive,
        default=8,
        metavar="N",
        help="number of images of the same shape, or of tiles of one image, in a batch "
        "(default: %(default)s)",
    )
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> None:
    # Imported late, because importing PyTorch takes seconds and --help does not need it.
    from cocoseg.predictions import OutputFiles, write_predictions

    write_predictions(
        options.images,
        options.model,
        options.out,
        OutputFiles(
            mask=options.mask,
            overlay=options.overlay,
            probabilities=options.probabilities,
            gray=options.gray,
            legend=options.legend,
        ),
        device=options.device,
        batch_size=options.batch_size,
        tiles=options.tiles,
        flip=options.flip,
        scales=options.scales,
        coco=options.coco,
        coco_format=options.coco_format,
        as_json=options.json,
    )


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=_local_path, metavar="MODEL", help="as in `cocoseg predict --model`")
    add(
        "--split",
        choices=("test", "val", "train", "all"),
        default="test",
        help="the images to score (default: %(default)s)",
    )
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    # Imported late, because importing PyTorch takes seconds and --help does not need it.
    import torch

    from cocoseg.core.labels import read_classes
    from cocoseg.evaluation.class_matching import score_by_class_name
    from cocoseg.inference.batches import Views
    from cocoseg.inference.dataset import read_samples
    from cocoseg.inference.predictor import load
    from cocoseg.models.devices import enough_memory
    from cocoseg.params.evaluate import EvaluateParams
    from cocoseg.params.reader import load_params
    from cocoseg.params.runtime import RuntimeParams
    from cocoseg.reports.summary import format_scores

    params = load_params(Path("params.yaml"))
    evaluate_params, runtime = params[EvaluateParams], params[RuntimeParams]
    torch.set_num_threads(evaluate_params.threads)
    splits = ("train", "val", "test") if options.split == "all" else (options.split,)
    samples = [
        sample
        for split in splits
        for sample in read_samples(
            Path(f"data/splits/{split}.txt"), Path("data/images"), Path("data/masks")
        )
    ]
    with enough_memory("lower evaluate.batch_size"):
        scores = score_by_class_name(
            load(options.model, runtime.device).network,
            samples,
            read_classes(Path("data/classes.json")),
            batch_size=evaluate_params.batch_size,
            workers=runtime.worker_count(),
            views=Views(evaluate_params.scales, evaluate_params.flip, evaluate_params.tiles),
        )
    if options.json:
        result = {"model": str(options.model), "split": options.split, **scores}
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        title = "Scores" if options.split == "all" else f"{options.split.capitalize()} scores"
        print(format_scores(scores, title))


def _add_check(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("annotations", metavar="ANNOTATIONS", help="the path or URL of a COCO file")
    add("images", metavar="IMAGES", help="the path or URL of the directory of the images")
    add(
        "--classes",
        nargs="+",
        default="all",
        metavar="CLASS",
        help="the classes to select (default: all that have annotations)",
    )
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> None:
    from cocoseg.check import check_export, next_step

    arguments = options.annotations, options.images, options.classes
    checked = check_export(*arguments)
    print(checked.as_text())
    if not checked.selection:
        raise UserError("nothing is left to train on: see the reasons above")
    print(f"\n{next_step(*arguments)}")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("first", metavar="A", help="the reference")
    add("others", nargs="+", metavar="B", help="the revisions to compare with A")
    add(
        "--split",
        choices=("val", "test"),
        help="the images to compare on: val to choose a run, test for the result "
        "(default: val; test for folds)",
    )
    add("--same-ground-truth", action="store_true", help="score all against the ground truth of A")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--md", action="store_true", help="print Markdown, for a pull request")
    formats.add_argument("--json", action="store_true", help="print JSON")
    add("--html", type=Path, metavar="FILE", help="write a page with the images that differ most")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    # Imported late, because importing DVC takes a second and --help does not need it.
    from cocoseg.experiments.compare import (
        as_json,
        as_markdown,
        as_page,
        as_text,
        compare_revisions,
    )

    results = compare_revisions(
        [options.first, *options.others],
        split=options.split,
        same_ground_truth=options.same_ground_truth,
    )
    if options.html:
        write_text(options.html, as_page(results))
    if options.json:
        print(json.dumps(as_json(results), indent=2, ensure_ascii=False))
    else:
        print(as_markdown(results) if options.md else as_text(results))


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="REVISION",
        help="commits, branches, tags, experiments, patterns or workspace "
        "(default: the experiments that started from the current commit)",
    )
    parser.add_argument(
        "--split",
        choices=("val", "test"),
        default="val",
        help="the images of the scores: val to choose a run, test for the result "
        "(default: %(default)s)",
    )
    parser.set_defaults(run=_runs)


def _runs(options: argparse.Namespace) -> None:
    from cocoseg.experiments.runs import runs_table

    print(runs_table(options.names, options.split))


def _add_label_errors(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        metavar="REVISION",
        default=["workspace"],
        help="commits, branches, tags, experiments or patterns (default: workspace)",
    )
    add(
        "--first",
        type=_positive,
        default=20,
        metavar="N",
        help="rows to print (default: %(default)s)",
    )
    add("--csv", type=Path, metavar="FILE", help="write all rows, as in metrics/label_errors.csv")
    add("--html", type=Path, metavar="FILE", help="write a page that shows the first N")
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


def _add_search(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("space", type=Path, metavar="SPACE.yaml", help="the values to try")
    add(
        "--trials",
        type=_positive,
        default=30,
        metavar="N",
        help="the number of trials of the search, those of earlier starts included "
        "(default: %(default)s)",
    )
    add("--name", help="the name of the search (default: the name of SPACE.yaml)")
    add(
        "--storage",
        metavar="FILE_OR_URL",
        help="a journal file of Optuna or the URL of a database "
        "(default: .dvc/tmp/search/NAME.journal)",
    )
    add("--random", action="store_true", help="draw the values at random, for a comparison")
    add("--html", type=Path, metavar="FILE", help="write a page with the results")
    parser.set_defaults(run=_search)


def _search(options: argparse.Namespace) -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError(
            "cocoseg search requires Optuna: run `pip install 'cocoseg[search]'`"
        ) from None
    from cocoseg.experiments.search import open_search, storage_errors
    from cocoseg.experiments.search_results import search_page, search_text

    with storage_errors():
        search = open_search(
            options.space,
            name=options.name or options.space.stem,
            storage=options.storage,
            random=options.random,
        )
        search.run(options.trials)
        if options.html:
            write_text(options.html, search_page(search))
        print(search_text(search))


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda, cuda:N or mps, got {name!r}")
    return name


def _tiles(text: str) -> "Tiles":
    if text == "full":
        return "full"
    if not text.isascii() or not text.isdigit() or int(text) < 32:
        raise argparse.ArgumentTypeError(f"expected full or an integer from 32, got {text!r}")
    return int(text)


def _local_path(text: str) -> Path:
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text):  # `Path` would remove a slash
        raise argparse.ArgumentTypeError(f"{text} is a URL: download the file and pass its path")
    return Path(text)


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0
    if not 0.1 <= scale <= 10:
        raise argparse.ArgumentTypeError(f"expected a number from 0.1 to 10, got {text!r}")
    return scale


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
