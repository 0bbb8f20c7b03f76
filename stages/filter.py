"""Select images and annotations before any image is fetched.

Reads   data/annotations/instances.json, the file given by filter.exclude
Writes  data/selection.json, data/classes.json (label, name and color of each class),
        data/rejected.csv, metrics/filter.json
Run     python -m stages.filter
"""

from pathlib import Path

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rejections import write_rejections
from cocoseg.core.files import write_json
from cocoseg.core.labels import write_classes
from cocoseg.core.stage import run_stage
from cocoseg.curation.exclusions import read_exclusions, warn_of_unknown
from cocoseg.curation.selection import NothingSelected, select, write_selection
from cocoseg.curation.selection_log import log_selection, mostly_crowd
from cocoseg.params.filter import FilterParams
from cocoseg.params.reader import load_params


def main() -> None:
    params = load_params(Path("params.yaml"))[FilterParams]
    read = read_instances(Path("data/annotations/instances.json"))
    exclude = read_exclusions(Path(params.exclude))
    warn_of_unknown(read, exclude, Path(params.exclude))
    try:
        selection = select(
            read,
            params.classes,
            max_instances=params.max_instances,
            max_images=params.max_images,
            prefer=params.prefer,
            seed=params.seed,
            exclude=exclude,
            out_of_bounds=params.out_of_bounds,
            empty_fraction=params.empty_fraction,
        )
    except NothingSelected as error:
        write_rejections(Path("data/rejected.csv"), error.rejections, read.instances)
        raise
    log_selection(selection, mostly_crowd(selection.instances))
    write_selection(Path("data/selection.json"), selection.instances)
    write_classes(Path("data/classes.json"), [c.name for c in selection.instances.categories])
    write_rejections(Path("data/rejected.csv"), selection.rejections, read.instances)
    write_json(Path("metrics/filter.json"), selection.summary())


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/filter.json"))
