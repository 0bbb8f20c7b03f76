"""Show the data on one page, before training.

Reads   data/annotations/instances.json, data/selection.json, data/rejected.csv,
        data/near_duplicates.csv, data/splits/, data/images/, data/masks/,
        metrics/{filter,mask,split}.json
Writes  metrics/data.html, metrics/data.json, metrics/data/{classes,sizes}.csv
Run     python -m stages.inspect
"""

import logging
from pathlib import Path

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rejections import read_rejections
from cocoseg.core.files import atomic_directory, write_csv, write_json, write_text
from cocoseg.core.stage import run_stage
from cocoseg.curation.classes import labels_of_categories
from cocoseg.curation.near_duplicates import read_near_duplicates
from cocoseg.curation.splits import read_splits
from cocoseg.params.filter import FilterParams
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams
from cocoseg.reports.data.galleries import Inputs
from cocoseg.reports.data.measure import measure
from cocoseg.reports.data.page import make_data_page
from cocoseg.reports.data.warnings import find_data_warnings
from cocoseg.reports.html import read_json


def main() -> None:
    params = load_params(Path("params.yaml"))
    selection = read_instances(Path("data/selection.json")).instances
    data = measure(selection, Path("data/masks"), params[RuntimeParams].worker_count())
    source = read_instances(Path("data/annotations/instances.json")).instances
    inputs = Inputs(
        source=source,
        rejections=read_rejections(Path("data/rejected.csv")),
        images=Path("data/images"),
        masks=Path("data/masks"),
        near_duplicates=read_near_duplicates(Path("data/near_duplicates.csv")),
        splits=read_splits(Path("data/splits")),
        labels=labels_of_categories(source, params[FilterParams].classes),
    )
    splits = read_json(Path("metrics/split.json"))
    data_warnings = find_data_warnings(data, splits, inputs.rejections)
    page = make_data_page(data, data_warnings, inputs, Path("metrics"))
    with atomic_directory(Path("metrics/data")) as directory:
        write_csv(directory / "classes.csv", data.class_rows())
        write_csv(directory / "sizes.csv", data.side_rows())
    write_json(Path("metrics/data.json"), {**data.figures(), "warnings": len(data_warnings)})
    write_text(Path("metrics/data.html"), page)
    for warning in data_warnings[:3]:
        logging.info("data warning: %s", warning.text)
    more = len(data_warnings) - 3
    logging.info(
        "metrics/data.html: %.1f MB, opens in any browser%s",
        len(page) / 1e6,
        f"; it shows {more} more data warnings" if more > 0 else "",
    )


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/inspect.json"))
