"""Near-duplicate images: planted copies are found, unrelated images are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cocoseg.coco.instances import read_instances
from cocoseg.core.errors import UserError
from cocoseg.curation import near_duplicates
from cocoseg.curation.near_duplicates import (
    SIDE,
    NearDuplicate,
    count_near_duplicates,
    find_near_duplicates,
    read_near_duplicates,
    write_near_duplicates,
)
from cocoseg.params.download import SampleParams
from cocoseg.sources.synthetic import SampleSource
from tests.mirror import MIRROR, needs_mirror
from tests.planted import KINDS, plant


@needs_mirror
def test_planted_copies_of_coco_images_are_found_and_nothing_else(tmp_path: Path) -> None:
    originals = sorted(MIRROR.glob("*2017/*.jpg"))
    kinds = list(KINDS)
    images = {path.stem: path for path in originals}
    for number, path in enumerate(originals):
        images[f"{path.stem} copy"] = plant(path, kinds[number % len(kinds)], tmp_path)
    found = {(pair.first, pair.second) for pair in find_near_duplicates(images, 2)}
    planted = {(path.stem, f"{path.stem} copy") for path in originals}
    assert len(found & planted) >= 0.95 * len(planted)
    assert found <= planted


def test_scenes_of_the_sample_are_not_duplicates_but_their_copies_are(tmp_path: Path) -> None:
    source = SampleSource(SampleParams(images=150, width=128, height=96, seed=0), workers=1)
    source.write_annotations(tmp_path / "instances.json")
    records = read_instances(tmp_path / "instances.json").instances.images
    source.fetch_images(records, tmp_path)
    images = {record.stem: tmp_path / record.file_name for record in records}
    assert find_near_duplicates(images, 1) == []
    copies = {f"{stem} {kind}": (path, kind) for stem, path in images.items() for kind in KINDS}
    some = dict(list(copies.items())[:80])
    images |= {name: plant(path, kind, tmp_path) for name, (path, kind) in some.items()}
    found = {(pair.first, pair.second) for pair in find_near_duplicates(images, 1)}
    assert sum((path.stem, name) in found for name, (path, _) in some.items()) >= 0.95 * len(some)
    assert all(first.split()[0] == second.split()[0] for first, second in found)


def scene(number: int) -> Image.Image:
    """Random blobs, different for each number; 96 x 72 pixels."""
    noise = np.random.default_rng(number).normal(size=(72, 96))
    blobs = gaussian_filter(noise, 2)
    return Image.fromarray(((blobs / blobs.std()).clip(-2, 2) * 60 + 128).astype(np.uint8))


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Eight scenes `0` to `7`, and `copy`, which is a copy of `3`."""
    for number in range(8):
        scene(number).save(tmp_path / f"{number}.jpg", quality=95)
    scene(3).save(tmp_path / "copy.png")
    return {path.stem: path for path in tmp_path.iterdir()}


def framed_scenes(directory: Path) -> dict[str, Path]:
    """20 scenes between black bars, which make all of them candidates of each other."""
    paths = {}
    for number in range(20):
        framed = Image.new("L", (96, 100))
        framed.paste(scene(number), (0, 14))
        paths[str(number)] = directory / f"{number}.png"
        framed.save(paths[str(number)])
    return paths


def test_a_pair_is_listed_once_with_the_smaller_name_first(images: dict[str, Path]) -> None:
    (pair,) = find_near_duplicates(images, 1)
    assert (pair.first, pair.second) == ("3", "copy")
    assert 0.99 < pair.similarity <= 1


def test_candidates_below_the_limit_of_similarity_are_not_near_duplicates(
    images: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "SIMILAR", 0.0)
    (pair,) = find_near_duplicates(images, 1)
    monkeypatch.setattr(near_duplicates, "SIMILAR", pair.similarity + 0.001)
    assert find_near_duplicates(images, 1) == []


def test_windows_are_close_to_the_crops_by_a_tenth_of_two_or_four_sides() -> None:
    crops = [[0.0] * 4, [0.1] * 4]
    crops += [[x, 0.1 - x, y, 0.1 - y] for x in (0.0, 0.1) for y in (0.0, 0.1)]
    distances = np.abs(np.array(crops)[:, None] - near_duplicates.WINDOWS).max(axis=2)
    assert distances.min(axis=1).max() < 0.021


def test_workers_and_the_order_of_images_do_not_change_the_result(images: dict[str, Path]) -> None:
    reverse = dict(sorted(images.items(), reverse=True))
    assert find_near_duplicates(reverse, 3) == find_near_duplicates(images, 0) != []


def test_uniform_images_are_not_near_duplicates(images: dict[str, Path], tmp_path: Path) -> None:
    for name in ("blank", "empty"):
        images[name] = tmp_path / f"{name}.png"
        Image.new("L", (96, 72), 200).save(images[name])
    assert [(pair.first, pair.second) for pair in find_near_duplicates(images, 1)] == [
        ("3", "copy")
    ]


def test_images_that_are_almost_black_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """12-bit values in 16 bits, of which the file says nothing, are at most 15 of 255."""
    twelve_bits = np.linspace(0, 4095, 96 * 72).reshape(72, 96).astype(np.uint16)
    pixels = {"b": twelve_bits, "a": twelve_bits // 2, "dim": twelve_bits * 3}
    paths = {name: tmp_path / f"{name}.png" for name in pixels}
    for name, path in paths.items():
        Image.fromarray(pixels[name]).save(path)
    find_near_duplicates(paths, 0)
    [message] = caplog.messages
    assert message.startswith("2 images are almost black, the first: a.")
    assert "12-bit values in 16 bits" in message
    caplog.clear()
    Image.fromarray(twelve_bits).save(tmp_path / "a.tif", tiffinfo={281: 4095})
    find_near_duplicates({"a": tmp_path / "a.tif", "dim": paths["dim"]}, 0)
    assert caplog.messages == []


def test_shifted_images_are_compared_where_they_overlap() -> None:
    left, right = (
        np.stack([scene(n).resize((SIDE, SIDE), box=(x, 0, x + 90, 72)) for n in range(10)])
        for x in (0, 6)
    )
    similarities = near_duplicates._similarity(left, right, np.zeros(10, np.int64))
    assert similarities.min() > 0.96


def test_bars_above_and_below_do_not_make_near_duplicates(tmp_path: Path) -> None:
    assert find_near_duplicates(framed_scenes(tmp_path), 1) == []


def test_of_many_candidates_the_most_similar_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = framed_scenes(tmp_path)
    for name in ("3", "11"):
        images[f"{name} copy"] = tmp_path / f"{name} copy.jpg"
        Image.open(images[name]).save(images[f"{name} copy"], quality=90)
    monkeypatch.setattr(near_duplicates, "NEAREST", 1)
    found = [(pair.first, pair.second) for pair in find_near_duplicates(images, 1)]
    assert found == [("11", "11 copy"), ("3", "3 copy")]


def test_candidates_are_limited_per_image_and_do_not_depend_on_the_block_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(near_duplicates, "NEAREST", 5)
    scenes = [np.asarray(scene(number).resize((SIDE, SIDE))) for number in range(9)]
    thumbnails = np.stack([scenes[number % 9] for number in range(70)])
    for block in (16, 1024):
        found = np.concatenate(list(near_duplicates._candidates(thumbnails, block=block)))
        # Each scene occurs seven or eight times; copies are equally similar.
        copies = [[j for j in range(i % 9, 70, 9) if j != i][:5] for i in range(70)]
        assert found[:, :2].tolist() == [[i, j] for i in range(70) for j in copies[i]]


def test_no_images_or_a_single_image_have_no_pairs(images: dict[str, Path]) -> None:
    assert find_near_duplicates({}, 2) == []
    assert find_near_duplicates({"3": images["3"]}, 2) == []


def test_the_error_for_a_damaged_image_names_it(images: dict[str, Path]) -> None:
    images["5"].write_bytes(images["5"].read_bytes()[:200])
    with pytest.raises(UserError, match=r"5\.jpg:? is damaged"):
        find_near_duplicates(images, 2)


def test_pairs_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = [NearDuplicate("a", "b", 0.951), NearDuplicate("b", "c, d", 1.0)]
    path = tmp_path / "near_duplicates.csv"
    write_near_duplicates(path, pairs)
    assert path.read_text(encoding="utf-8") == 'first,second,similarity\na,b,0.951\nb,"c, d",1.0\n'
    assert read_near_duplicates(path) == pairs
    write_near_duplicates(path, [])
    assert read_near_duplicates(path) == []


@pytest.mark.parametrize(
    "content", [b"first,second\na,b\n", b"first,second,similarity\na,b,high\n", b"\xff"]
)
def test_a_damaged_file_of_pairs_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "near_duplicates.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"near_duplicates\.csv is damaged: remove it, then run"):
        read_near_duplicates(path)


def test_pairs_across_splits_are_counted() -> None:
    pairs = [NearDuplicate(*names, 1.0) for names in [("a", "b"), ("b", "c"), ("a", "d")]]
    splits = {"train": ["a", "b"], "val": ["d"], "test": ["c"]}
    assert count_near_duplicates(pairs, splits) == {"pairs": 3, "across_splits": 2}
    assert count_near_duplicates([], splits) == {"pairs": 0, "across_splits": 0}
