"""Sizes, disjointness and balance of splits."""

import itertools
import random
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cocoseg.coco.instances import (
    Annotation,
    Category,
    ImageRecord,
    Instances,
    read_instances,
)
from cocoseg.core.errors import UserError
from cocoseg.curation.selection import select
from cocoseg.curation.splits import (
    SPLITS,
    given_splits,
    read_splits,
    split_images,
    split_sizes,
    split_stems,
    summarize_splits,
    write_splits,
)
from cocoseg.sources.synthetic.scenes import annotations_json

ratio_lists = st.lists(
    st.one_of(st.integers(0, 20), st.floats(0.001, 10).map(lambda ratio: round(ratio, 3))),
    min_size=3,
    max_size=3,
).filter(lambda ratios: sum(ratios) > 0)
strata = st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any)


def stems_by_stratum(counts: list[int]) -> dict[str, int]:
    return {
        f"image_{stratum}_{number}": stratum
        for stratum, count in enumerate(counts)
        for number in range(count)
    }


def split_or_none(
    stratum_by_stem: dict[str, int], ratios: list[float], seed: int = 0
) -> dict[str, list[str]] | None:
    """The splits, or None if a split would be empty."""
    try:
        return split_stems(stratum_by_stem, dict(zip(SPLITS, ratios, strict=True)), seed)
    except UserError:
        return None


def test_8000_images_at_8_1_1_are_6400_800_800() -> None:
    assert split_sizes(8000, [8, 1, 1]) == [6400, 800, 800]
    assert split_sizes(8000, [0.8, 0.1, 0.1]) == [6400, 800, 800]


def test_decimal_ratios_are_exact_and_the_first_of_equal_remainders_is_rounded_up() -> None:
    assert split_sizes(21, [0.3, 0.2, 0.1]) == [11, 7, 3]  # 10.5, 7 and 3.5
    for total in range(100):
        assert split_sizes(total, [0.3, 0.2, 0.1]) == split_sizes(total, [3, 2, 1])
        assert split_sizes(total, [0.7, 0.2, 0.1]) == split_sizes(total, [7, 2, 1])


@given(st.integers(0, 300), ratio_lists)
@settings(max_examples=200, deadline=None)
def test_sizes_follow_the_method_of_largest_remainders(total: int, ratios: list[float]) -> None:
    sizes = split_sizes(total, ratios)
    assert sum(sizes) == total
    weights = [Fraction(str(ratio)) for ratio in ratios]
    exact = [total * weight / sum(weights) for weight in weights]
    remainders = [fraction - size for fraction, size in zip(exact, sizes, strict=True)]
    assert all(-1 < remainder < 1 for remainder in remainders)
    # Each quota that was rounded up has at least the remainder of each that was rounded down.
    up = [remainder + 1 for remainder in remainders if remainder < 0]
    down = [remainder for remainder in remainders if remainder > 0]
    assert not up or not down or min(up) >= max(down)


@given(strata, ratio_lists, st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_splits_are_disjoint_complete_stratified_and_of_exact_size(
    counts: list[int], ratios: list[float], seed: int
) -> None:
    stratum_by_stem = stems_by_stratum(counts)
    splits = split_or_none(stratum_by_stem, ratios, seed)
    if splits is None:
        sizes = split_sizes(len(stratum_by_stem), ratios)
        assert any(ratio > 0 and size == 0 for ratio, size in zip(ratios, sizes, strict=True))
        return
    assert sorted(itertools.chain(*splits.values())) == sorted(stratum_by_stem)
    assert [len(splits[name]) for name in SPLITS] == split_sizes(len(stratum_by_stem), ratios)
    weights = [Fraction(str(ratio)) for ratio in ratios]
    for name, weight in zip(SPLITS, weights, strict=True):
        found = Counter(stratum_by_stem[stem] for stem in splits[name])
        for stratum, count in enumerate(counts):
            assert abs(found[stratum] - count * weight / sum(weights)) < 1


@given(strata, ratio_lists, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_split_does_not_depend_on_the_order_of_the_images(
    counts: list[int], ratios: list[float], shuffler: random.Random
) -> None:
    stratum_by_stem = stems_by_stratum(counts)
    shuffled = list(stratum_by_stem.items())
    shuffler.shuffle(shuffled)
    splits = split_or_none(stratum_by_stem, ratios)
    assume(splits is not None)
    assert split_or_none(dict(shuffled), ratios) == splits


def test_the_seed_determines_the_split() -> None:
    stems = stems_by_stratum([50, 30])
    assert split_or_none(stems, [8, 1, 1], seed=0) == split_or_none(stems, [8, 1, 1], seed=0)
    assert split_or_none(stems, [8, 1, 1], seed=0) != split_or_none(stems, [8, 1, 1], seed=1)


def test_the_error_for_an_empty_split_names_it() -> None:
    message = r"split\.ratios\.val: 3 images are too few, val would be empty"
    with pytest.raises(UserError, match=message):
        split_stems({"a": 1, "b": 1, "c": 1}, {"train": 8, "val": 1, "test": 1}, 0)


def test_a_split_with_a_ratio_of_0_is_empty() -> None:
    splits = split_stems({"a": 1, "b": 1}, {"train": 1, "val": 0, "test": 0}, 0)
    assert splits == {"train": ["a", "b"], "val": [], "test": []}


def selection_of(classes_by_image: dict[int, list[int]]) -> Instances:
    pairs = [(image, label) for image, labels in classes_by_image.items() for label in labels]
    return Instances(
        [ImageRecord(image, f"{image}.jpg", 10, 10) for image in classes_by_image],
        [Annotation(number, image, label) for number, (image, label) in enumerate(pairs)],
        [Category(1, "person"), Category(2, "bicycle")],
    )


def test_an_image_counts_for_its_rarest_class() -> None:
    # Ten images show a person and a bicycle. Stratified as bicycles, val and test get one each.
    with_bicycle = {image: [1, 1, 2] for image in range(10)}
    without = {image: [1] for image in range(10, 100)}
    splits = split_images(
        selection_of(with_bicycle | without), {"train": 8, "val": 1, "test": 1}, 0
    )
    for name, expected in {"train": 8, "val": 1, "test": 1}.items():
        assert sum(int(stem) in with_bicycle for stem in splits[name]) == expected


def test_images_without_objects_are_divided_in_proportion() -> None:
    with_objects = {image: [1 + image % 2] for image in range(80)}
    empty: dict[int, list[int]] = {image: [] for image in range(80, 100)}
    selection = selection_of(with_objects | empty)
    for seed in range(5):
        splits = split_images(selection, {"train": 8, "val": 1, "test": 1}, seed)
        assert [sum(int(stem) in empty for stem in splits[name]) for name in SPLITS] == [16, 2, 2]


def test_splits_are_read_as_they_were_written(tmp_path: Path) -> None:
    splits = {"train": ["a", "b\u2028c", "d e"], "val": [], "test": ["f.g"]}
    write_splits(tmp_path, splits)
    assert (tmp_path / "train.txt").read_bytes() == "a\nb\u2028c\nd e\n".encode()
    assert read_splits(tmp_path) == splits


def test_the_summary_counts_images_in_total_and_by_class() -> None:
    selection = selection_of({1: [1, 1], 2: [1, 2], 3: [2]})
    splits = {"train": ["1", "2"], "val": ["3"], "test": []}
    assert summarize_splits(selection, splits) == {
        "train": {"images": 2, "classes": {"person": 2, "bicycle": 1}},
        "val": {"images": 1, "classes": {"person": 0, "bicycle": 1}},
        "test": {"images": 0, "classes": {"person": 0, "bicycle": 0}},
    }


@given(strata, st.integers(2, 7), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_every_image_is_in_one_test_fold_and_folds_are_equal_and_stratified(
    counts: list[int], folds: int, seed: int
) -> None:
    stratum_by_stem = stems_by_stratum([count + 30 for count in counts])
    ratios = {"train": 8, "val": 1, "test": 1}
    splits = [
        split_stems(stratum_by_stem, ratios, seed, fold=fold, folds=folds) for fold in range(folds)
    ]
    tested = list(itertools.chain(*(split["test"] for split in splits)))
    assert sorted(tested) == sorted(stratum_by_stem)
    for split in splits:
        assert sorted(itertools.chain(*split.values())) == sorted(stratum_by_stem)
        assert abs(len(split["test"]) - len(tested) / folds) < 1
        train_and_val = len(split["train"]) + len(split["val"])
        assert [len(split["train"]), len(split["val"])] == split_sizes(train_and_val, [8, 1])
        for stratum, count in enumerate(counts):
            found = sum(stratum_by_stem[stem] == stratum for stem in split["test"])
            assert abs(found - (count + 30) / folds) < 1


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"split\.folds: 2 images are too few for 3 folds"):
        split_stems({"a": 1, "b": 1}, {"train": 1, "val": 0, "test": 1}, 0, fold=2, folds=3)


def test_other_filters_hardly_move_images_between_train_and_test(tmp_path: Path) -> None:
    """Runs are comparable because few test images of one are training images of the other.

    The documentation states the numbers: at most two images for any two filters of the sample, and
    1 in 200 on average.
    """
    path = tmp_path / "instances.json"
    path.write_text(annotations_json(700, 64, 48, 0), encoding="utf-8")
    read = read_instances(path)
    random_filters = random.Random(0)

    def split_of_some_filter() -> dict[str, list[str]]:
        selection = select(
            read,
            ["person", "bicycle", "car", "motorcycle", "airplane", "dog"][
                : random_filters.randint(4, 6)
            ],
            max_instances=random_filters.choice([3, 5, 8, 10, 15, 30]),
            max_images=random_filters.choice([300, 400, 500, 600, 700]),
            prefer=random_filters.choice(["rare", "random", "first"]),
            seed=random_filters.randrange(3),
        )
        return split_images(selection.instances, {"train": 8, "val": 1, "test": 1}, 0)

    crossing = tested = 0
    for _ in range(60):
        first, second = split_of_some_filter(), split_of_some_filter()
        crossed = {*first["test"]} & {*second["train"]} | {*second["test"]} & {*first["train"]}
        count = len(first["test"]) + len(second["test"])
        assert len(crossed) <= 2
        assert set(first["test"]) & set(second["test"])
        crossing += len(crossed)
        tested += count
    assert crossing <= 0.005 * tested


@dataclass(frozen=True)
class Grouped:
    """Images of up to 6 strata in groups of up to 8."""

    strata: dict[str, int]
    groups: dict[str, str]

    def largest(self) -> int:
        return max(Counter(self.groups.values()).values())


@st.composite
def grouped_images(draw: st.DrawFn, mixed: bool = False) -> Grouped:
    sizes = draw(st.lists(st.integers(1, 8), min_size=12, max_size=60))
    strata = draw(st.lists(st.integers(0, 5), min_size=len(sizes), max_size=len(sizes)))
    grouped = Grouped({}, {})
    for number, (size, stratum) in enumerate(zip(sizes, strata, strict=True)):
        for member in range(size):
            stem = f"image_{number}_{member}"
            grouped.strata[stem] = (stratum + member) % 6 if mixed else stratum
            grouped.groups[stem] = f"group_{number}"
    return grouped


def splits_of_groups(groups: dict[str, str], splits: dict[str, list[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, stems in splits.items():
        for stem in stems:
            found.setdefault(groups[stem], set()).add(name)
    return found


@given(grouped_images(mixed=True), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_every_group_is_in_one_split_independent_of_the_order_of_the_images(
    images: Grouped, seed: int
) -> None:
    ratios = {"train": 8, "val": 1, "test": 1}
    splits = split_stems(images.strata, ratios, seed, groups=images.groups)
    assert sorted(itertools.chain(*splits.values())) == sorted(images.strata)
    assert all(len(names) == 1 for names in splits_of_groups(images.groups, splits).values())
    shuffled = dict(sorted(images.strata.items(), reverse=True))
    assert split_stems(shuffled, ratios, seed, groups=images.groups) == splits


@given(grouped_images(), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_groups_change_sizes_and_strata_by_at_most_two_groups(images: Grouped, seed: int) -> None:
    ratios = {"train": 6, "val": 2, "test": 2}
    splits = split_stems(images.strata, ratios, seed, groups=images.groups)
    sizes = split_sizes(len(images.strata), list(ratios.values()))
    totals = Counter(images.strata.values())
    for name, size in zip(SPLITS, sizes, strict=True):
        assert abs(len(splits[name]) - size) <= 2 * images.largest()
        found = Counter(images.strata[stem] for stem in splits[name])
        for stratum, total in totals.items():
            assert abs(found[stratum] - total * ratios[name] / 10) <= 2 * images.largest()


@given(grouped_images(mixed=True), st.integers(2, 6), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_every_group_is_in_one_test_fold(images: Grouped, folds: int, seed: int) -> None:
    ratios = {"train": 8, "val": 1, "test": 1}
    tested: list[str] = []
    for fold in range(folds):
        splits = split_stems(
            images.strata, ratios, seed, groups=images.groups, fold=fold, folds=folds
        )
        assert sorted(itertools.chain(*splits.values())) == sorted(images.strata)
        assert all(len(names) == 1 for names in splits_of_groups(images.groups, splits).values())
        tested += splits["test"]
    assert sorted(tested) == sorted(images.strata)


@given(strata, ratio_lists)
@settings(max_examples=50, deadline=None)
def test_groups_of_one_image_change_nothing(counts: list[int], ratios: list[float]) -> None:
    stems = stems_by_stratum(counts)
    by_name = dict(zip(SPLITS, ratios, strict=True))
    plain = split_or_none(stems, ratios)
    assume(plain is not None)
    assert split_stems(stems, by_name, 0, groups={stem: stem for stem in stems}) == plain


def test_a_group_of_two_images_moves_at_most_three_images() -> None:
    stems = stems_by_stratum([200, 100, 50])
    ratios = {"train": 8, "val": 1, "test": 1}
    plain = split_stems(stems, ratios, 0)
    paired = split_stems(stems, ratios, 0, groups={"image_0_1": "image_0_0"})
    moved = [stem for name in SPLITS for stem in set(plain[name]) - set(paired[name])]
    assert len(moved) <= 3


def test_removing_groups_moves_at_most_two_other_groups() -> None:
    groups = {f"image_{number}": f"video_{number // 4}" for number in range(400)}
    gone = {f"video_{number}" for number in range(0, 100, 9)}
    ratios = {"train": 8, "val": 1, "test": 1}
    before = split_stems(dict.fromkeys(groups, 1), ratios, 0, groups=groups)
    kept = {stem: 1 for stem in groups if groups[stem] not in gone}
    after = split_stems(kept, ratios, 0, groups=groups)
    moved = {groups[stem] for stem in set(before["test"]) & set(kept) - set(after["test"])}
    assert len(moved) <= 2


def test_three_large_groups_fill_three_splits() -> None:
    groups = {f"image_{number}": f"site_{number % 3}" for number in range(90)}
    stems = dict.fromkeys(groups, 1)
    for seed in range(10):
        splits = split_stems(stems, {"train": 8, "val": 1, "test": 1}, seed, groups=groups)
        assert [len(splits[name]) for name in SPLITS] == [30, 30, 30]


def test_fewer_groups_than_splits_are_refused() -> None:
    groups = {f"image_{number}": f"site_{number % 2}" for number in range(90)}
    ratios = {"train": 8, "val": 1, "test": 1}
    with pytest.raises(UserError, match=r"90 images \(groups: 2\) are too few, .* empty"):
        split_stems(dict.fromkeys(groups, 1), ratios, 0, groups=groups)


@given(grouped_images(), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_a_split_with_a_ratio_of_0_gets_no_group(images: Grouped, seed: int) -> None:
    ratios = {"train": 8, "val": 2, "test": 0}
    assert split_stems(images.strata, ratios, seed, groups=images.groups)["test"] == []


def test_a_group_counts_for_its_rarest_stratum() -> None:
    pairs = {f"{name}_{n}": f"pair_{n}" for n in range(10) for name in ("rare", "common")}
    strata = {stem: int(stem.startswith("rare")) for stem in pairs}
    strata |= {f"single_{n}": 0 for n in range(90)}
    for seed in range(5):
        splits = split_stems(strata, {"train": 8, "val": 1, "test": 1}, seed, groups=pairs)
        assert [sum(strata[stem] for stem in splits[name]) for name in SPLITS] == [8, 1, 1]


def test_a_group_belongs_to_the_first_split_that_has_room_for_half_of_it() -> None:
    groups = {f"image_{number}": f"pair_{number // 2}" for number in range(6)}
    ratios = {"train": 1, "val": 1, "test": 0}
    splits = split_stems(dict.fromkeys(groups, 1), ratios, 0, groups=groups)
    assert [len(splits[name]) for name in SPLITS] == [4, 2, 0]


def given_images(*splits: str) -> Instances:
    images = [ImageRecord(n, f"{n}.jpg", 9, 9, split=name) for n, name in enumerate(splits)]
    return Instances(images, [], [])


def test_splits_of_an_export_are_kept_or_refused_if_incomplete() -> None:
    ratios = {"train": 8, "val": 1, "test": 1}
    selection = given_images("val", "train", "test", "train")
    assert given_splits(selection, ratios) == {"train": ["1", "3"], "val": ["0"], "test": ["2"]}
    with pytest.raises(UserError, match=r"4\.jpg has no split; set `split` for each of down"):
        given_splits(given_images("val", "train", "test", "train", ""), ratios)
    with pytest.raises(UserError, match=r"has no image for test; add a pair with `split: test`"):
        given_splits(given_images("val", "train"), ratios)
    assert given_splits(given_images("train"), {"train": 1, "val": 0, "test": 0})["test"] == []
