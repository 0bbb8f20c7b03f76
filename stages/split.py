"""Divide the selected images into train, val and test; a group of images stays in one split.

Reads   data/selection.json, data/near_duplicates.csv, data/annotations/instances.json
Writes  data/splits/{train,val,test}.txt (one image stem per line), metrics/split.json
Run     python -m stages.split
"""

from pathlib import Path

from cocoseg.coco.instances import read_instances
from cocoseg.core.files import atomic_directory, write_json
from cocoseg.core.stage import run_stage
from cocoseg.curation.groups import group_images, join_groups
from cocoseg.curation.near_duplicates import count_near_duplicates, read_near_duplicates
from cocoseg.curation.splits import given_splits, split_images, summarize_splits, write_splits
from cocoseg.params.reader import load_params
from cocoseg.params.split import SplitParams


def main() -> None:
    split = load_params(Path("params.yaml"))[SplitParams]
    selection = read_instances(Path("data/selection.json")).instances
    near_duplicates = read_near_duplicates(Path("data/near_duplicates.csv"))
    groups: dict[str, str] = {}
    if split.group_by:
        instances = Path("data/annotations/instances.json")
        groups = group_images(selection.images, split.group_by, instances)
    if split.keep_duplicates_together:
        groups = join_groups(groups, [(pair.first, pair.second) for pair in near_duplicates])
    ratios = split.ratios.model_dump()
    if split.from_ == "export":
        splits = given_splits(selection, ratios)
    else:
        splits = split_images(
            selection, ratios, split.seed, groups=groups, fold=split.fold, folds=split.folds
        )
    with atomic_directory(Path("data/splits")) as directory:
        write_splits(directory, splits)
    summary = summarize_splits(selection, splits)
    write_json(
        Path("metrics/split.json"),
        {**summary, "near_duplicates": count_near_duplicates(near_duplicates, splits)},
    )


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/split.json"))
