"""Find near-duplicates among the selected images; the stage `split` keeps them together.

Reads   data/selection.json, data/images/
Writes  data/near_duplicates.csv
Run     python -m stages.near_duplicates
"""

from pathlib import Path

from cocoseg.coco.instances import read_instances
from cocoseg.core.stage import run_stage
from cocoseg.curation.near_duplicates import find_near_duplicates, write_near_duplicates
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams


def main() -> None:
    workers = load_params(Path("params.yaml"))[RuntimeParams].worker_count()
    selection = read_instances(Path("data/selection.json")).instances
    images = {image.stem: Path("data/images") / image.file_name for image in selection.images}
    pairs = find_near_duplicates(images, workers)
    write_near_duplicates(Path("data/near_duplicates.csv"), pairs)


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/near_duplicates.json"))
