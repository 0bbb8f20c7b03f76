"""Paint the annotations of each selected image into a label map.

Reads   data/selection.json
Writes  data/masks/<image stem>.png, metrics/mask.json
Run     python -m stages.mask
"""

from pathlib import Path

from cocoseg.annotations.instances import read_instances
from cocoseg.annotations.masks import write_masks
from cocoseg.common.files import atomic_folder, write_json
from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage


def main() -> None:
    params = load_params(Path("params.yaml"))
    selection = read_instances(Path("data/selection.json")).instances
    with atomic_folder(Path("data/masks")) as folder:
        summary = write_masks(
            selection,
            folder,
            overlap=params.mask.overlap,
            crowd=params.mask.crowd,
            workers=params.runtime.worker_count(),
        )
    write_json(Path("metrics/mask.json"), summary)


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/mask.json"))
