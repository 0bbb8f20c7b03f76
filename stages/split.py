"""Divide the selected images into train, val and test.

Reads   data/selection.json
Writes  data/splits/{train,val,test}.txt (an image stem a line), metrics/split.json
Run     python -m stages.split
"""

from pathlib import Path

from cocoseg.annotations.instances import read_instances
from cocoseg.annotations.splits import given_splits, split_images, summarize_splits
from cocoseg.common.files import atomic_folder, write_json, write_text
from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage


def main() -> None:
    params = load_params(Path("params.yaml")).split
    selection = read_instances(Path("data/selection.json")).instances
    ratios = params.ratios.model_dump()
    if params.from_ == "export":
        splits = given_splits(selection, ratios)
    else:
        splits = split_images(selection, ratios, params.seed, fold=params.fold, folds=params.folds)
    with atomic_folder(Path("data/splits")) as folder:
        for name, stems in splits.items():
            write_text(folder / f"{name}.txt", "".join(f"{stem}\n" for stem in stems))
    write_json(Path("metrics/split.json"), summarize_splits(selection, splits))


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/split.json"))
