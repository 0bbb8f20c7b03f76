"""Print the test scores and the paths of the results, at the end of `make repro`.

python -m cocoseg.reports.summary
"""

import json
import sys
from pathlib import Path
from typing import Any

_RESULTS = {
    "model": "models/model.safetensors",
    "ONNX": "models/onnx/",
    "scores": "metrics/test.json",
    "examples": "metrics/examples/",
    "report": "metrics/report.html",
}


def format_scores(scores: dict[str, Any]) -> str:
    """Format the content of `metrics/test.json` as a text table with a row for each class."""
    rows = [(name, value) for name, value in scores["iou"].items()]
    rows.append(("mean IoU", scores["miou"]))
    width = max(len(name) for name, _ in rows)
    lines = [f"Test scores over {scores['images']} images (IoU)", ""]
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
        lines.append("  mean IoU is undefined: no test image shows a class")
    if empty := scores.get("empty_images"):
        lines.append(
            f"  {empty['images']} images without objects: {empty['false_alarms']:.0%} with a false "
            "alarm"
        )
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
    main()
