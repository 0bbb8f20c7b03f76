"""Fetch or draw the selected images; valid existing files are kept.

Reads   data/selection.json, the source given in params.yaml
Writes  data/images/
Run     python -m stages.images
"""

from pathlib import Path

from cocoseg.coco.instances import read_instances
from cocoseg.core.stage import run_stage
from cocoseg.params.download import DownloadParams
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams
from cocoseg.sources.source import open_source, update_images


def main() -> dict[str, int]:
    params = load_params(Path("params.yaml"))
    source = open_source(params[DownloadParams], params[RuntimeParams], Path("data/downloads"))
    selection = read_instances(Path("data/selection.json")).instances
    report = update_images(source, selection.images, Path("data/images"))
    return report.figures()


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/images.json"))
