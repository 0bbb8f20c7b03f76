"""Fetch or draw the selected images; those that are there and right are kept.

Reads   data/selection.json, the source that params.yaml names
Writes  data/images/
Run     python -m stages.images
"""

from pathlib import Path

from cocoseg.annotations.instances import read_instances
from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage
from cocoseg.sources.source import open_source, update_images


def main() -> dict[str, int]:
    source = open_source(load_params(Path("params.yaml")), downloads=Path("data/downloads"))
    selection = read_instances(Path("data/selection.json")).instances
    report = update_images(source, selection.images, Path("data/images"))
    return report.figures()


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/images.json"))
