"""Disjoint train, validation and test splits, every class spread over them in proportion."""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cocoseg.coco.instances import Instances, images_by_class, rarest_class_by_image
from cocoseg.core.errors import UserError
from cocoseg.core.files import write_text
from cocoseg.core.seeding import sort_key

SPLITS = ("train", "val", "test")


def split_sizes(total: int, ratios: Sequence[float]) -> list[int]:
    """Divide `total` in proportion by largest remainder: 8,000 at 8:1:1 gives 6,400, 800, 800."""
    fractions = _exact_quotas(total, ratios)
    sizes = [math.floor(fraction) for fraction in fractions]
    by_remainder = sorted(range(len(fractions)), key=lambda k: (sizes[k] - fractions[k], k))
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
    """Assign every stem to one of SPLITS.

    `stratum_by_stem` gives each image's stem its stratum (its rarest class). The sizes of the
    splits are those of `split_sizes`; each stratum's share of each is the proportional one, rounded
    down or up. With `fold`, from 0, the test split is that one of `folds` equal parts, and the
    ratios divide the rest into train and val. The order of the mapping does not matter. Lists are
    sorted. Raises UserError when a split with a ratio above zero would be empty.

    `groups` gives stems the key of the group with which they share a split; a stem without one is
    a group of its own. A group counts for the rarest stratum of its members. Sizes and shares can
    then be missed by up to about the size of the largest group.
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
            raise UserError(f"split.folds: {count} are too few for {folds} folds")
        rest = [unit for part in dealt for unit in part]
        parts = [*_deal(rest, [ratios["train"], ratios["val"]], seed), test]
    for name, part in zip(SPLITS, parts, strict=True):
        if ratios[name] > 0 and not part:
            raise UserError(f"split.ratios.{name}: {count} are too few to leave it any")
    return {
        name: sorted(stem for unit in part for stem in unit.stems)
        for name, part in zip(SPLITS, parts, strict=True)
    }


@dataclass
class _Unit:
    """Images that share a split. Its place among others comes from `key`."""

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
    """Divide the units by `weights`, each stratum in proportion and in the order of the units' own
    hashes. A unit keeps its part, but for a few at a boundary, when others come or go."""
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
    lacking = [0] * len(weights)  # what the strata before left a part short of; below 0: gave it
    for stratum, row in zip(members, _proportional_table(totals, weights, sizes), strict=True):
        lacking = [before + count for before, count in zip(lacking, row, strict=True)]
        waiting = deque(stratum)
        for part in range(len(weights)):
            # A unit goes where half of it has room; what is left, to the last part.
            while waiting and (part == last or len(waiting[0].stems) <= 2 * lacking[part]):
                unit = waiting.popleft()
                parts[part].append(unit)
                lacking[part] -= len(unit.stems)
    for part, size in enumerate(sizes):
        donor = max(parts, key=len)
        if size and not parts[part] and len(donor) > 1:  # a few large units have left it out
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
    """Split the images of a selection as `split_stems`; an image counts for its rarest class."""
    rarest = rarest_class_by_image(images_by_class(selection.annotations))
    strata = {image.stem: rarest[image.id] for image in selection.images}
    return split_stems(strata, ratios, seed, groups=groups, fold=fold, folds=folds)


def given_splits(selection: Instances, ratios: Mapping[str, float]) -> dict[str, list[str]]:
    """The stems of the images of each split as the export gave them, sorted.

    Raises UserError when an image has no split, or a split with a ratio above zero no image.
    """
    splits: dict[str, list[str]] = {name: [] for name in SPLITS}
    for image in selection.images:
        if image.split not in splits:
            raise UserError(
                f"split.from: {image.file_name} came without a split; name one for each of "
                "download.files.pairs, or take `draw`"
            )
        splits[image.split].append(image.stem)
    for name, stems in splits.items():
        if ratios[name] > 0 and not stems:
            raise UserError(
                f"split.from: the export has no image for {name}; name a pair with `split: {name}` "
                f"in download.files.pairs, take `draw`, or set split.ratios.{name} to 0"
            )
    return {name: sorted(stems) for name, stems in splits.items()}


def write_splits(directory: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Write `train.txt`, `val.txt` and `test.txt`: one image stem on each line."""
    for name, stems in splits.items():
        write_text(directory / f"{name}.txt", "".join(f"{stem}\n" for stem in stems))


def read_splits(directory: Path) -> dict[str, list[str]]:
    """Read the files that `write_splits` wrote."""
    texts = {name: (directory / f"{name}.txt").read_text(encoding="utf-8") for name in SPLITS}
    # Not splitlines(), which also splits at characters that a file name may have.
    return {name: text.split("\n")[:-1] for name, text in texts.items()}


def summarize_splits(
    selection: Instances, splits: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """The counts of `metrics/split.json`: each split's images, and how many show each class."""
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
    exact = [Fraction(str(ratio)) for ratio in ratios]
    return [total * ratio / sum(exact) for ratio in exact]


def _proportional_table(
    row_sums: Sequence[int], ratios: Sequence[float], column_sums: Sequence[int]
) -> list[list[int]]:
    """Whole numbers with these row and column sums, each the proportional share rounded down or up.

    This is controlled rounding: start from all shares rounded down, then hand out the units that
    each row still lacks to columns that still lack some, moving earlier units out of the way along
    augmenting paths (a bipartite matching).
    """
    fractions = [_exact_quotas(row_sum, ratios) for row_sum in row_sums]
    table = [[math.floor(fraction) for fraction in row] for row in fractions]
    columns = zip(*table, strict=True)
    lacking = [size - sum(column) for size, column in zip(column_sums, columns, strict=True)]
    rounded_up: set[tuple[int, int]] = set()

    def place(row: int, visited: set[int]) -> bool:
        by_remainder = sorted(range(len(ratios)), key=lambda k: table[row][k] - fractions[row][k])
        for column in by_remainder:
            exact = fractions[row][column] == table[row][column]
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
