"""Disjoint train, validation and test splits, every class spread over them in proportion."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from cocoseg.annotations.instances import Instances, images_by_class, rarest_class_by_image
from cocoseg.common.errors import UserError
from cocoseg.common.randomness import sort_key

SPLITS = ("train", "val", "test")


def split_sizes(total: int, ratios: Sequence[float]) -> list[int]:
    """Divide `total` in proportion by largest remainder: 8,000 at 8:1:1 gives 6,400, 800, 800."""
    shares = _exact_shares(total, ratios)
    sizes = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda k: (sizes[k] - shares[k], k))
    for k in by_remainder[: total - sum(sizes)]:
        sizes[k] += 1
    return sizes


def split_stems(
    stratum_by_stem: Mapping[str, int],
    ratios: Mapping[str, float],
    seed: int,
    *,
    fold: int | None = None,
    folds: int = 5,
) -> dict[str, list[str]]:
    """Assign every stem to one of SPLITS.

    `stratum_by_stem` gives each image's stem its stratum (its rarest class). The sizes of the
    splits are those of `split_sizes`; each stratum's share of each is the proportional one, rounded
    down or up. With `fold`, from 0, the test split is that one of `folds` equal parts, and the
    ratios divide the rest into train and val. The order of the mapping does not matter. Lists are
    sorted. Raises UserError when a split with a ratio above zero would be empty.
    """
    count = len(stratum_by_stem)
    if fold is None:
        parts = _deal(stratum_by_stem, [ratios[name] for name in SPLITS], seed)
    else:
        test = _deal(stratum_by_stem, [1.0] * folds, seed)[fold]
        if not test:
            raise UserError(f"split.folds: {count} images are too few for {folds} folds")
        rest = {stem: s for stem, s in stratum_by_stem.items() if stem not in set(test)}
        parts = [*_deal(rest, [ratios["train"], ratios["val"]], seed), test]
    for name, part in zip(SPLITS, parts, strict=True):
        if ratios[name] > 0 and not part:
            raise UserError(f"split.ratios.{name}: {count} images are too few to leave it any")
    return dict(zip(SPLITS, parts, strict=True))


def _deal(
    stratum_by_stem: Mapping[str, int], weights: Sequence[float], seed: int
) -> list[list[str]]:
    """Divide the stems by `weights`, each stratum in proportion and in the order of the stems' own
    hashes; sorted. A stem keeps its part, but for a few at a boundary, when others come or go."""
    strata: dict[int, list[str]] = defaultdict(list)
    for stem, stratum in stratum_by_stem.items():
        strata[stratum].append(stem)
    members = [
        sorted(strata[stratum], key=lambda stem: sort_key(seed, "split", stem))
        for stratum in sorted(strata)
    ]
    sizes = split_sizes(len(stratum_by_stem), weights)
    counts = _proportional_table([len(stems) for stems in members], weights, sizes)
    parts: list[list[str]] = [[] for _ in weights]
    for stems, row in zip(members, counts, strict=True):
        start = 0
        for part, count in zip(parts, row, strict=True):
            part += stems[start : start + count]
            start += count
    return [sorted(part) for part in parts]


def split_images(
    selection: Instances,
    ratios: Mapping[str, float],
    seed: int,
    *,
    fold: int | None = None,
    folds: int = 5,
) -> dict[str, list[str]]:
    """Split the images of a selection by stem; an image counts for its rarest class."""
    rarest = rarest_class_by_image(images_by_class(selection.annotations))
    strata = {image.stem: rarest[image.id] for image in selection.images}
    return split_stems(strata, ratios, seed, fold=fold, folds=folds)


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


def _exact_shares(total: int, ratios: Sequence[float]) -> list[Fraction]:
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
    shares = [_exact_shares(row_sum, ratios) for row_sum in row_sums]
    table = [[math.floor(share) for share in row] for row in shares]
    columns = zip(*table, strict=True)
    lacking = [size - sum(column) for size, column in zip(column_sums, columns, strict=True)]
    rounded_up: set[tuple[int, int]] = set()

    def place(row: int, visited: set[int]) -> bool:
        by_remainder = sorted(range(len(ratios)), key=lambda k: table[row][k] - shares[row][k])
        for column in by_remainder:
            exact = shares[row][column] == table[row][column]
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
