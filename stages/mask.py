"""Rasterize the annotations of each selected image into a segmentation mask.

Reads   data/selection.json
Writes  data/masks/<image stem>.png, metrics/mask.json
Run     python -m stages.mask
"""

from pathlib import Path

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.core.files import atomic_directory, write_json
from cocoseg.core.stage import run_stage
from cocoseg.params.mask import MaskParams
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams


def main() -> None:
    params = load_params(Path("params.yaml"))
    selection = read_instances(Path("data/selection.json")).instances
    with atomic_directory(Path("data/masks")) as directory:
        summary = write_masks(
            selection,
            directory,
            overlap=params[MaskParams].overlap,
            crowd=params[MaskParams].crowd,
            workers=params[RuntimeParams].worker_count(),
        )
    write_json(Path("metrics/mask.json"), summary)


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/mask.json"))
