"""Disjoint train, validation and test splits, stratified by class."""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict

from cocoseg.coco.instances import Instances, images_by_class, rarest_class_by_image
from cocoseg.core.errors import UserError
from cocoseg.core.files import write_text
from cocoseg.core.seeding import sort_key

SPLITS = ("train", "val", "test")


def split_sizes(total: int, ratios: Sequence[float]) -> list[int]:
    """Divide `total` in proportion to `ratios` by the method of largest remainders.

    8,000 images at 8:1:1 become 6,400, 800 and 800. Ratios are exact decimals: 0.1 is a tenth. Of
    equal remainders, the first is rounded up.
    """
    quotas = _exact_quotas(total, ratios)
    sizes = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda k: (sizes[k] - quotas[k], k))
    for k in by_remainder[: total - sum(sizes)]:
        sizes[k] += 1
    return sizes


def split_stems(
    stratum_by_stem: Mapping[str, int],
    ratios: Mapping[str, float],
    seed: int,
    *,
    groups: Mapping[str, str] = MappingProxyType({}),
    fold: int | None = None,
    folds: int = 5,
) -> dict[str, list[str]]:
    """Assign images to splits, each stratum in proportion.

    Without groups, the sizes are exactly the sizes of `split_sizes`, and each split gets its quota
    of each stratum, rounded down or up. With groups, both may differ from that by about the size of
    the largest group. The order of the images has no influence.

    Args:
        stratum_by_stem: the stratum of each image, such as its rarest class.
        ratios: the ratio of each of SPLITS.
        seed: of the random order.
        groups: the key of the group of each image. A group shares a split, and counts for the
            rarest stratum of its images. An image without a key is a group by itself.
        fold: number of the fold that becomes the test split, from 0. The ratios then divide only
            the other images, into train and val.
        folds: number of equal folds; used with `fold` only.

    Returns:
        The sorted stems of each split.

    Raises:
        UserError: a split with a ratio above 0 would be empty.
    """
    units = _units(stratum_by_stem, groups)
    count = f"{len(stratum_by_stem)} images"
    if len(units) < len(stratum_by_stem):
        count += f" (groups: {len(units)})"
    if fold is None:
        parts = _deal(units, [ratios[name] for name in SPLITS], seed)
    else:
        dealt = _deal(units, [1.0] * folds, seed)
        test = dealt.pop(fold)
        if not test:
            raise UserError(
                f"split.folds: {count} are too few for {folds} folds; lower split.folds"
            )
        rest = [unit for part in dealt for unit in part]
        parts = [*_deal(rest, [ratios["train"], ratios["val"]], seed), test]
    for name, part in zip(SPLITS, parts, strict=True):
        if ratios[name] > 0 and not part:
            raise UserError(
                f"split.ratios.{name}: {count} are too few, {name} would be empty; raise its ratio "
                "or add images"
            )
    return {
        name: sorted(stem for unit in part for stem in unit.stems)
        for name, part in zip(SPLITS, parts, strict=True)
    }


@dataclass
class _Unit:
    """Images that share a split; the hash of `key` decides which."""

    key: str
    stratum: int
    stems: list[str]


def _units(stratum_by_stem: Mapping[str, int], groups: Mapping[str, str]) -> list[_Unit]:
    sizes = Counter(stratum_by_stem.values())
    units: dict[str, _Unit] = {}
    for stem, stratum in stratum_by_stem.items():
        unit = units.setdefault(groups.get(stem, stem), _Unit(groups.get(stem, stem), stratum, []))
        unit.stratum = min(unit.stratum, stratum, key=lambda s: (sizes[s], s))
        unit.stems.append(stem)
    return list(units.values())


def _deal(units: Sequence[_Unit], weights: Sequence[float], seed: int) -> list[list[_Unit]]:
    """Divide the units in proportion to `weights`, each stratum in the order of the units' hashes.

    If other units are added or removed, only a few units at the boundaries change their part.
    """
    strata: dict[int, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[unit.stratum].append(unit)
    members = [
        sorted(strata[stratum], key=lambda unit: sort_key(seed, "split", unit.key))
        for stratum in sorted(strata)
    ]
    totals = [sum(len(unit.stems) for unit in stratum) for stratum in members]
    sizes = split_sizes(sum(totals), weights)
    parts: list[list[_Unit]] = [[] for _ in weights]
    last = max(part for part, weight in enumerate(weights) if weight > 0)
    lacking = [0] * len(weights)  # images that each part still lacks; negative: has too many
    for stratum, row in zip(members, _proportional_table(totals, weights, sizes), strict=True):
        lacking = [before + count for before, count in zip(lacking, row, strict=True)]
        waiting = deque(stratum)
        for part in range(len(weights)):
            # A unit fits if half of its images do; the last part takes the rest.
            while waiting and (part == last or len(waiting[0].stems) <= 2 * lacking[part]):
                unit = waiting.popleft()
                parts[part].append(unit)
                lacking[part] -= len(unit.stems)
    for part, size in enumerate(sizes):
        donor = max(parts, key=len)
        if size and not parts[part] and len(donor) > 1:  # a few large units may leave a part empty
            parts[part].append(donor.pop())
    return parts


def split_images(
    selection: Instances,
    ratios: Mapping[str, float],
    seed: int,
    *,
    groups: Mapping[str, str] = MappingProxyType({}),
    fold: int | None = None,
    folds: int = 5,
) -> dict[str, list[str]]:
    """Assign the images of a selection to splits, stratified by the rarest class of each image.

    Images without annotations are a stratum too. Arguments, result and errors are those of
    `split_stems`.
    """
    rarest = rarest_class_by_image(images_by_class(selection.annotations))
    strata = {image.stem: rarest.get(image.id, 0) for image in selection.images}
    return split_stems(strata, ratios, seed, groups=groups, fold=fold, folds=folds)


def given_splits(selection: Instances, ratios: Mapping[str, float]) -> dict[str, list[str]]:
    """Assign images to the splits that their export gave them.

    Args:
        selection: images with the field `split`.
        ratios: the ratio of each of SPLITS; only ratios of 0 matter.

    Returns:
        The sorted stems of each split.

    Raises:
        UserError: an image has no split, or a split with a ratio above 0 has no image.
    """
    splits: dict[str, list[str]] = {name: [] for name in SPLITS}
    for image in selection.images:
        if image.split not in splits:
            raise UserError(
                f"split.from: {image.file_name} has no split; set `split` for each of "
                "download.files.pairs, or set split.from to `draw`"
            )
        splits[image.split].append(image.stem)
    for name, stems in splits.items():
        if ratios[name] > 0 and not stems:
            raise UserError(
                f"split.from: the export has no image for {name}; add a pair with `split: {name}` "
                f"to download.files.pairs, set split.from to `draw`, or split.ratios.{name} to 0"
            )
    return {name: sorted(stems) for name, stems in splits.items()}


def write_splits(directory: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Write `train.txt`, `val.txt` and `test.txt` with one image stem per line."""
    for name, stems in splits.items():
        write_text(directory / f"{name}.txt", "".join(f"{stem}\n" for stem in stems))


def read_splits(directory: Path) -> dict[str, list[str]]:
    """Read the files that `write_splits` wrote."""
    texts = {name: (directory / f"{name}.txt").read_text(encoding="utf-8") for name in SPLITS}
    # splitlines() would also split at characters that a file name may contain.
    return {name: text.split("\n")[:-1] for name, text in texts.items()}


class SplitSummary(TypedDict):
    """Number of images of a split, and number of images that show each class."""

    images: int
    classes: dict[str, int]


def summarize_splits(
    selection: Instances, splits: Mapping[str, Sequence[str]]
) -> dict[str, SplitSummary]:
    """Count the images of each split in total and by class, for `metrics/split.json`."""
    stem_of = {image.id: image.stem for image in selection.images}
    shown = {(stem_of[a.image_id], a.category_id) for a in selection.annotations}
    return {
        name: {
            "images": len(stems),
            "classes": {
                category.name: sum((stem, category.id) in shown for stem in stems)
                for category in selection.categories
            },
        }
        for name, stems in splits.items()
    }


def _exact_quotas(total: int, ratios: Sequence[float]) -> list[Fraction]:
    # str() gives the decimal that the user wrote: the float 0.1 is more than a tenth.
    exact = [Fraction(str(ratio)) for ratio in ratios]
    return [total * ratio / sum(exact) for ratio in exact]


def _proportional_table(
    row_sums: Sequence[int], ratios: Sequence[float], column_sums: Sequence[int]
) -> list[list[int]]:
    """Integers with the given row and column sums, each a proportional quota rounded down or up.

    The method is controlled rounding: all quotas are rounded down, then each row gives the units
    that it still lacks to columns that still lack some. Augmenting paths move earlier units out of
    the way (a bipartite matching).
    """
    quotas = [_exact_quotas(row_sum, ratios) for row_sum in row_sums]
    table = [[math.floor(quota) for quota in row] for row in quotas]
    columns = zip(*table, strict=True)
    lacking = [size - sum(column) for size, column in zip(column_sums, columns, strict=True)]
    rounded_up: set[tuple[int, int]] = set()

    def place(row: int, visited: set[int]) -> bool:
        by_remainder = sorted(range(len(ratios)), key=lambda k: table[row][k] - quotas[row][k])
        for column in by_remainder:
            exact = quotas[row][column] == table[row][column]
            if column in visited or (row, column) in rounded_up or exact:
                continue
            visited.add(column)
            if lacking[column] > 0:
                lacking[column] -= 1
                rounded_up.add((row, column))
                return True
            for other in [r for r, c in sorted(rounded_up) if c == column]:
                if place(other, visited):
                    rounded_up.remove((other, column))
                    rounded_up.add((row, column))
                    return True
        return False

    for row, row_sum in enumerate(row_sums):
        for _ in range(row_sum - sum(table[row])):
            if not place(row, set()):
                raise AssertionError("controlled rounding always has a solution")
    for row, column in rounded_up:
        table[row][column] += 1
    return table
