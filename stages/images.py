"""Fetch or draw the selected images; those that are there and right are kept.

Reads   data/selection.json, the source that params.yaml names
Writes  data/images/
Run     python -m stages.images
"""

from pathlib import Path

from cocoseg.annotations import read_instances
from cocoseg.params import load_params
from cocoseg.sources import open_source, update_images
from cocoseg.stage import run_stage


def main() -> dict[str, int]:
    source = open_source(load_params(Path("params.yaml")), downloads=Path("data/downloads"))
    selection = read_instances(Path("data/selection.json")).instances
    report = update_images(source, selection.images, Path("data/images"))
    return report.figures()


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/images.json"))
