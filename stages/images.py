"""Fetch or draw the selected images; valid existing files are kept.

Reads   data/selection.json, the source given in params.yaml
Writes  data/images/
Run     python -m stages.images
"""

from pathlib import Path
from typing import Any

from cocoseg.coco.instances import read_instances
from cocoseg.core.stage import run_stage
from cocoseg.params.download import DownloadParams
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams
from cocoseg.sources.dvc_cache import earlier_figures, restore_images
from cocoseg.sources.source import open_source, update_images


def main() -> dict[str, Any]:
    params = load_params(Path("params.yaml"))
    source = open_source(params[DownloadParams], params[RuntimeParams], Path("data/downloads"))
    images = read_instances(Path("data/selection.json")).instances.images
    restore_images(images, Path("data/images"), params[DownloadParams])
    report = update_images(source, images, Path("data/images"))
    # The figures of an update of images that an earlier run had are those of that run, as if DVC's
    # run cache had restored it. `dvc.lock` is then the same, too.
    earlier = earlier_figures(Path("data/images")) if report.kept else None
    return earlier or report.figures()


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/images.json"))
