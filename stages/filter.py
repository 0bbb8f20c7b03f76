"""Select images and annotations before any image is fetched.

Reads   data/annotations/instances.json, the file given by filter.exclude
Writes  data/selection.json, data/classes.json (class names in the order of labels 1, 2, …),
        data/rejected.csv, metrics/filter.json
Run     python -m stages.filter
"""

from pathlib import Path

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rejections import write_rejections
from cocoseg.core.files import write_json
from cocoseg.core.stage import run_stage
from cocoseg.curation.selection import (
    log_rejections,
    read_exclusions,
    select,
    warn_of_unknown,
    write_selection,
)
from cocoseg.params.filter import FilterParams
from cocoseg.params.reader import load_params


def main() -> None:
    params = load_params(Path("params.yaml"))[FilterParams]
    read = read_instances(Path("data/annotations/instances.json"))
    exclude = read_exclusions(Path(params.exclude))
    warn_of_unknown(read, exclude, Path(params.exclude))
    selection = select(
        read,
        params.classes,
        max_instances=params.max_instances,
        max_images=params.max_images,
        prefer=params.prefer,
        seed=params.seed,
        exclude=exclude,
    )
    log_rejections(selection)
    write_selection(Path("data/selection.json"), selection)
    write_json(Path("data/classes.json"), [c.name for c in selection.instances.categories])
    write_rejections(Path("data/rejected.csv"), selection.rejections)
    write_json(Path("metrics/filter.json"), selection.summary())


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/filter.json"))
