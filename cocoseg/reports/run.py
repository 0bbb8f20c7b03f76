"""The report of a run: one HTML page made from the files of all stages."""

import csv
import itertools
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from cocoseg.core.drawing import ERRORS
from cocoseg.core.errors import UserError
from cocoseg.core.files import curve_name
from cocoseg.core.values import flatten, read_yaml
from cocoseg.reports.html import (
    class_colors,
    hex_color,
    jpeg_uri,
    line_chart,
    plain,
    read_json,
    render_page,
)

PUBLISHED_IOU = {
    "background": 0.91,
    "person": 0.70,
    "bicycle": 0.26,
    "car": 0.41,
    "motorcycle": 0.42,
    "airplane": 0.43,
}
PUBLISHED_MIOU = 0.524
"""The published result of `_PROTOCOL` for five classes of COCO."""

_PROTOCOL_IMAGES = 8000
_PROTOCOL = {
    "download.coco.split": "val2014",
    "filter.max_instances": 10,
    "filter.out_of_bounds": "drop",
    "filter.empty_fraction": 0,
    "split.ratios": {"train": 8, "val": 1, "test": 1},
}

_MATRIX_CLASSES = 20
"""The confusion matrix shows at most this number of classes."""

_EXAMPLE_VIEWS = ("image", "ground_truth", "prediction", "errors")
_LABEL_ERROR_VIEWS = ("image", "annotated", "predicted")

_STAGES = (
    *("download", "filter", "images", "mask", "near_duplicates", "split"),
    *("inspect", "initial_weights", "train", "evaluate", "export"),
)
_MACHINE_COLUMNS = ("seconds", "peak_memory_mib", "device", "cpus", "machine", "python")
_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pycocotools", "dvc", "safetensors")

_CURVE_TITLES = {
    "loss": "Training loss",
    "val": "Validation scores",
    "val/iou": "Validation IoU by class",
    "lr": "Learning rate",
}
_CURVE_NAMES = {
    "miou": "mean IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
}
_LINE_COLORS = ("#1f5fa8", "#d1495b", "#2e8b57", "#8a5fbf", "#b8860b", "#444444")


def make_report(metrics: Path, params: Mapping[str, Any], lock: Path, title: str) -> str:
    """Make the report as HTML.

    Args:
        metrics: the directory `metrics`. Without `export.json`, the report has no export section.
        params: the parameters by section.
        lock: `dvc.lock`. If it does not exist, the report has no hashes.
        title: the title of the page.

    Raises:
        UserError: a file is damaged, or the training has not finished.
    """
    test, val = read_json(metrics / "test.json"), read_json(metrics / "val.json")
    details = read_json(metrics / "test_details.json")
    train = read_json(metrics / "train/metrics.json")
    if "epoch" not in train:
        raise UserError(
            f"{metrics}/train: the training has not finished; resume it with `dvc repro`"
        )
    filtered = read_json(metrics / "filter.json")
    splits = read_json(metrics / "split.json")
    near_duplicates = splits.pop("near_duplicates", None)
    names = list(test["iou"])
    label_errors = _read_rows(metrics / "label_errors.csv")
    machine = read_machine_figures(metrics / "machine")
    return render_page(
        Path(__file__).with_name("run.html.jinja"),
        title=title,
        params=params,
        val=val,
        test=test,
        details=details,
        train=train,
        published={"miou": PUBLISHED_MIOU, "iou": PUBLISHED_IOU}
        if is_comparable(params, names)
        else None,
        views=_describe_views(params["evaluate"]),
        deviations=deviations_from_protocol(params, filtered["images_kept"], test["iou"]),
        filtered=filtered,
        masks=read_json(metrics / "mask.json"),
        splits=splits,
        near_duplicates=near_duplicates,
        export=read_json(metrics / "export.json", {}),
        latency=machine.get("export", {}).get("latency_ms", {}),
        colors=class_colors(names),
        error_colors={name: hex_color(color) for name, color in ERRORS.items()},
        examples=[
            {**example, "panels": _panels(metrics / "panels", example["name"], _EXAMPLE_VIEWS)}
            for example in details["examples"]
        ],
        label_errors=len(label_errors),
        gallery=[
            (label_error, _panels(metrics / "panels", f"label_error_{number}", _LABEL_ERROR_VIEWS))
            for number, label_error in enumerate(label_errors, start=1)
            if (metrics / f"panels/label_error_{number}_image.jpg").is_file()
        ],
        confusion=_read_confusion(metrics / "plots/confusion.csv", names),
        curves=_draw_curves(metrics / "train/plots/metrics", names, train["epoch"]),
        image_scores=_draw_image_scores(metrics / "plots/images.csv"),
        reliability=_draw_reliability(metrics / "plots/reliability.csv"),
        flat_params={section: flatten(content) for section, content in params.items()},
        hashes=read_hashes(lock),
        machine=machine,
        machine_columns=_MACHINE_COLUMNS,
        packages={name: metadata.version(name) for name in _PACKAGES},
    )


def _describe_views(evaluate: Mapping[str, Any]) -> str:
    """The test-time augmentation of the evaluation; empty for a single view."""
    parts = []
    if evaluate["scales"] != [1.0]:
        parts.append(f"scales {plain(evaluate['scales'])}")
    if evaluate["flip"]:
        parts.append("mirror images")
    if evaluate["tiles"]:
        parts.append(f"tiles ({evaluate['tiles']})")
    return ", ".join(parts)


def is_comparable(params: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether the run uses COCO and the classes of the published result."""
    return params["download"]["source"] == "coco" and list(names) == list(PUBLISHED_IOU)


def deviations_from_protocol(
    params: Mapping[str, Any], images: int, ious: Mapping[str, float | None]
) -> list[str]:
    """List the differences between a run and the published protocol.

    Args:
        params: the parameters by section.
        images: the number of selected images.
        ious: the IoU of each class, None if no test image shows the class.

    Returns:
        Phrases such as `filter.max_instances is 15, not 10`.
    """
    deviations = []
    for key, published in _PROTOCOL.items():
        value: Any = params
        for name in key.split("."):
            value = value[name]
        if value != published:
            deviations.append(f"{key} is {plain(value)}, not {plain(published)}")
    if images != _PROTOCOL_IMAGES:
        deviations.append(f"the run has {images:,} images, not {_PROTOCOL_IMAGES:,}")
    unseen = [name for name, iou in ious.items() if iou is None]
    if unseen:
        deviations.append(f"the mean excludes {', '.join(unseen)}, which no test image shows")
    return deviations


class TrackedOutput(TypedDict):
    """An output in dvc.lock; `size` is in bytes, `files` is 1 unless it is a directory."""

    path: str
    md5: str
    size: int
    files: int


def read_hashes(lock: Path) -> list[TrackedOutput]:
    """Read the hashes of the data and models in dvc.lock that are not empty."""
    if not lock.is_file():
        return []
    stages = read_yaml(lock).get("stages", {})
    return [
        {"path": out["path"], "md5": out["md5"], "size": out["size"], "files": out.get("nfiles", 1)}
        for name in _STAGES
        for out in stages.get(name, {}).get("outs", [])
        if out["path"].startswith(("data/", "models/")) and "md5" in out and out["size"]
    ]


def read_machine_figures(directory: Path) -> dict[str, dict[str, Any]]:
    """Read the machine figures of each stage that has some, in the order of the pipeline."""
    figures = {name: read_json(directory / f"{name}.json", {}) for name in _STAGES}
    return {name: content for name, content in figures.items() if content}


def _read_rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def _read_confusion(path: Path, names: Sequence[str]) -> list[tuple[str, list[float]]]:
    """The name and the row of each class of the matrix, without the least confused classes."""
    rows = _read_rows(path)
    shape = len(names), len(names)
    fractions = np.array([float(row["fraction"]) for row in rows]).reshape(shape)
    wrong = np.array([int(row["pixels"]) for row in rows]).reshape(shape)
    np.fill_diagonal(wrong, 0)
    most_confused = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")
    shown = np.sort(most_confused[:_MATRIX_CLASSES])
    matrix = fractions[np.ix_(shown, shown)].tolist()
    return [(names[label], row) for label, row in zip(shown, matrix, strict=True)]


def _panels(directory: Path, name: str, views: Iterable[str]) -> dict[str, str]:
    """Data URIs of the views of an example or a label error."""
    return {view: jpeg_uri((directory / f"{name}_{view}.jpg").read_bytes()) for view in views}


def _draw_curves(directory: Path, names: Sequence[str], best_epoch: int) -> list[dict[str, Any]]:
    """A chart for each directory of curves that DVCLive wrote, and for each other curve."""
    known = _CURVE_NAMES | {curve_name(name): name for name in names}
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {title: {} for title in _CURVE_TITLES}
    for path in sorted(directory.rglob("*.tsv")):
        curve = path.relative_to(directory).with_suffix("").as_posix()
        if curve == "epoch":
            continue
        parent, _, name = curve.rpartition("/")
        rows = _read_rows(path, delimiter="\t")
        # DVCLive counts steps from 0; epochs count from 1.
        points = [(float(row["step"]) + 1, float(row[path.stem])) for row in rows]
        charts.setdefault(parent or name, {})[known.get(name, name)] = points
    drawn = []
    for key, series in charts.items():
        if not series:
            continue
        title = _CURVE_TITLES.get(key, key)
        colors = class_colors(names)
        if not set(series) <= set(colors):
            colors = dict(zip(series, itertools.cycle(_LINE_COLORS), strict=False))
        ordered = {name: series[name] for name in colors if name in series}
        chart = line_chart(
            ordered,
            colors,
            x_label="epoch",
            whole_x=True,
            marked_x=best_epoch,
            highest=1 if key.startswith("val") else None,
        )
        legend = {name: colors[name] for name in ordered} if len(series) > 1 else {}
        drawn.append({"title": title, "legend": legend, "chart": chart})
    return drawn


def _draw_image_scores(path: Path) -> str:
    points = [(float(row["fraction"]), float(row["miou"])) for row in _read_rows(path)]
    return line_chart(
        {"images": points},
        {"images": _LINE_COLORS[0]},
        x_label="fraction of the images with at most this score",
        y_label="mean IoU",
        x_limits=(0, 1),
        highest=1,
    )


def _draw_reliability(path: Path) -> str:
    points = [(float(row["confidence"]), float(row["accuracy"])) for row in _read_rows(path)]
    return line_chart(
        {"pixels": points},
        {"pixels": _LINE_COLORS[0]},
        x_label="softmax confidence",
        y_label="pixel accuracy",
        x_limits=(0, 1),
        highest=1,
        diagonal=True,
        dots=True,
    )
