"""Print the test scores and the paths of the results, at the end of `make repro`.

python -m cocoseg.reports.summary
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cocoseg.core.stage import run_stage

_RESULTS = {
    "model": "models/model.safetensors",
    "ONNX": "models/onnx/",
    "scores": "metrics/test.json, metrics/val.json",
    "examples": "metrics/examples/",
    "report": "metrics/report.html",
}


def format_scores(scores: Mapping[str, Any], title: str = "Test scores") -> str:
    """Format scores as a text table with a row for each class.

    Args:
        scores: the content of `metrics/test.json`, or the scores of `cocoseg evaluate`.
        title: the beginning of the first line.
    """
    rows = [(name, value) for name, value in scores["iou"].items()]
    rows.append(("mean IoU", scores["miou"]))
    width = max(len(name) for name, _ in rows)
    lines = [f"{title} over {scores['images']} images (IoU)", ""]
    for name, value in rows:
        if name == "mean IoU":
            lines.append("  " + "-" * (width + 28))
        shown = "  undefined" if value is None else f"{value:7.3f}  {'#' * round(value * 20)}"
        lines.append(f"  {name:<{width}}{shown}")
    accuracies = f"  pixel accuracy {scores['pixel_accuracy']:.3f}"
    if scores["mean_accuracy"] is not None:
        accuracies += f", mean {scores['mean_accuracy']:.3f}"
    lines.append(accuracies)
    if scores["miou"] is None:
        lines.append("  mean IoU is undefined: no image shows a class")
    if empty := scores.get("empty_images"):
        lines.append(
            f"  {empty['images']} images without objects: {empty['false_alarms']:.0%} with a false "
            "alarm"
        )
    if names := scores.get("unknown_to_model"):
        lines.append(f"  unknown to the model, without a score: {', '.join(names)}")
    if names := scores.get("unknown_to_data"):
        lines.append(f"  unknown to the data, counted as background: {', '.join(names)}")
    return "\n".join(lines)


def main() -> None:
    try:
        scores = json.loads(Path("metrics/test.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit("error: metrics/test.json not found: run `make repro`")
    print(f"\n{format_scores(scores)}\n")
    for name, path in _RESULTS.items():
        print(f"  {name:<16} {path}")


if __name__ == "__main__":
    run_stage(main, None)
