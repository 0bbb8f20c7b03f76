"""Show the data on one page, before anyone trains on it.

Reads   data/annotations/instances.json, data/selection.json, data/rejected.csv,
        data/near_duplicates.csv, data/images/, data/masks/, metrics/{filter,mask,split}.json
Writes  metrics/data.html, metrics/data.json, metrics/data/{classes,sizes}.csv
Run     python -m stages.inspect
"""

import logging
from collections import Counter
from pathlib import Path

from cocoseg.annotations.instances import read_instances
from cocoseg.annotations.selection import invalid_annotations, read_rejections
from cocoseg.common.files import atomic_folder, write_csv, write_json, write_text
from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage
from cocoseg.results.inspection.examples import Inputs
from cocoseg.results.inspection.oddities import find_oddities
from cocoseg.results.inspection.page import make_data_page
from cocoseg.results.inspection.statistics import measure
from cocoseg.results.pages import read_json


def main() -> None:
    params = load_params(Path("params.yaml"))
    selection = read_instances(Path("data/selection.json")).instances
    data = measure(selection, Path("data/masks"), params.runtime.worker_count())
    inputs = Inputs(
        source=read_instances(Path("data/annotations/instances.json")).instances,
        rejections=read_rejections(Path("data/rejected.csv")),
        images=Path("data/images"),
        masks=Path("data/masks"),
        duplicates=Path("data/near_duplicates.csv"),
    )
    invalid = Counter(r.reason for r in invalid_annotations(inputs.rejections))
    unusable = Counter(
        r.reason for r in inputs.rejections if r.kind == "image" and r.reason.startswith("photo_")
    )
    oddities = find_oddities(data, read_json(Path("metrics/split.json")), invalid, unusable)
    page = make_data_page(data, oddities, inputs, Path("metrics"))
    with atomic_folder(Path("metrics/data")) as folder:
        write_csv(folder / "classes.csv", data.class_rows())
        write_csv(folder / "sizes.csv", data.side_rows())
    write_json(Path("metrics/data.json"), {**data.figures(), "oddities": len(oddities)})
    write_text(Path("metrics/data.html"), page)
    for oddity in oddities[:3]:
        logging.info("odd: %s", oddity.text)
    more = len(oddities) - 3
    logging.info(
        "metrics/data.html: %.1f MB, opens in any browser%s",
        len(page) / 1e6,
        f"; it has {more} more" if more > 0 else "",
    )


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/inspect.json"))
