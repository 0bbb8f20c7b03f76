"""Divide the selected images into train, val and test; what belongs together stays together.

Reads   data/selection.json, data/images/, data/annotations/instances.json
Writes  data/splits/{train,val,test}.txt (an image stem a line), data/near_duplicates.csv,
        metrics/split.json
Run     python -m stages.split
"""

from pathlib import Path

from cocoseg.annotations.duplicates import find_duplicates, write_duplicates
from cocoseg.annotations.groups import group_images, join_groups
from cocoseg.annotations.instances import read_instances
from cocoseg.annotations.splits import given_splits, split_images, summarize_splits
from cocoseg.common.files import atomic_folder, write_json, write_text
from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage


def main() -> None:
    params = load_params(Path("params.yaml"))
    split = params.split
    selection = read_instances(Path("data/selection.json")).instances
    photos = {image.stem: Path("data/images") / image.file_name for image in selection.images}
    duplicates = find_duplicates(photos, params.runtime.worker_count())
    groups: dict[str, str] = {}
    if split.group_by:
        instances = Path("data/annotations/instances.json")
        groups = group_images(selection.images, split.group_by, instances)
    if split.keep_duplicates_together:
        groups = join_groups(groups, [(pair.first, pair.second) for pair in duplicates])
    ratios = split.ratios.model_dump()
    if split.from_ == "export":
        splits = given_splits(selection, ratios)
    else:
        splits = split_images(
            selection, ratios, split.seed, groups=groups, fold=split.fold, folds=split.folds
        )
    with atomic_folder(Path("data/splits")) as folder:
        for name, stems in splits.items():
            write_text(folder / f"{name}.txt", "".join(f"{stem}\n" for stem in stems))
    near = write_duplicates(Path("data/near_duplicates.csv"), duplicates, splits)
    summary = summarize_splits(selection, splits)
    write_json(Path("metrics/split.json"), {**summary, "near_duplicates": near})


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/split.json"))
