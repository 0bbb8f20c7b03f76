"""Near-duplicate photos: planted ones are found, others are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cocoseg.coco.instances import read_instances
from cocoseg.core.errors import UserError
from cocoseg.curation.near_duplicates import NearDuplicate, find_duplicates, write_duplicates
from cocoseg.params.download import SampleParams
from cocoseg.sources.synthetic import SampleSource
from tests.mirror import MIRROR, needs_mirror
from tests.planted import KINDS, plant


@needs_mirror
def test_planted_copies_of_photos_are_found_and_nothing_else(tmp_path: Path) -> None:
    originals = sorted(MIRROR.glob("*2017/*.jpg"))
    kinds = list(KINDS)
    photos = {path.stem: path for path in originals}
    for number, path in enumerate(originals):
        photos[f"{path.stem} copy"] = plant(path, kinds[number % len(kinds)], tmp_path)
    found = {(pair.first, pair.second) for pair in find_duplicates(photos, 2)}
    planted = {(path.stem, f"{path.stem} copy") for path in originals}
    assert len(found & planted) >= 0.95 * len(planted)
    # At most 0.1% would do; of 166,000 pairs there is none.
    assert found <= planted


def test_scenes_of_the_sample_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    source = SampleSource(SampleParams(images=150, width=128, height=96, seed=0), workers=1)
    source.write_annotations(tmp_path / "instances.json")
    images = read_instances(tmp_path / "instances.json").instances.images
    source.fetch_images(images, tmp_path)
    photos = {image.stem: tmp_path / image.file_name for image in images}
    assert find_duplicates(photos, 1) == []
    copies = {f"{stem} {kind}": (path, kind) for stem, path in photos.items() for kind in KINDS}
    some = dict(list(copies.items())[:80])
    photos |= {name: plant(path, kind, tmp_path) for name, (path, kind) in some.items()}
    found = {(pair.first, pair.second) for pair in find_duplicates(photos, 1)}
    assert sum((path.stem, name) in found for name, (path, _) in some.items()) >= 0.95 * len(some)
    assert all(first.split()[0] == second.split()[0] for first, second in found)


def scene(number: int) -> Image.Image:
    """Blots that differ from number to number, 96 x 72 pixels."""
    noise = np.random.default_rng(number).normal(size=(72, 96))
    blots = gaussian_filter(noise, 2)
    return Image.fromarray(((blots / blots.std()).clip(-2, 2) * 60 + 128).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, Path]:
    for number in range(8):
        scene(number).save(tmp_path / f"{number}.jpg", quality=95)
    scene(3).save(tmp_path / "copy.png")
    return {path.stem: path for path in tmp_path.iterdir()}


def test_a_pair_is_there_once_with_the_smaller_name_first(photos: dict[str, Path]) -> None:
    (pair,) = find_duplicates(photos, 1)
    assert (pair.first, pair.second) == ("3", "copy")
    assert 0.99 < pair.similarity <= 1


def test_workers_and_order_change_nothing(photos: dict[str, Path]) -> None:
    backwards = dict(sorted(photos.items(), reverse=True))
    assert find_duplicates(backwards, 3) == find_duplicates(photos, 0)


def test_photos_of_one_color_are_like_no_other(photos: dict[str, Path], tmp_path: Path) -> None:
    for name in ("blank", "empty"):
        photos[name] = tmp_path / f"{name}.png"
        Image.new("L", (96, 72), 200).save(photos[name])
    assert len(find_duplicates(photos, 1)) == 1


def test_bars_above_and_below_make_no_duplicates(tmp_path: Path) -> None:
    photos = {}
    for number in range(20):
        framed = Image.new("L", (96, 100))
        framed.paste(scene(number), (0, 14))
        photos[str(number)] = tmp_path / f"{number}.png"
        framed.save(photos[str(number)])
    assert find_duplicates(photos, 1) == []


def test_no_photo_or_one_makes_no_pair(photos: dict[str, Path]) -> None:
    assert find_duplicates({}, 2) == []
    assert find_duplicates({"3": photos["3"]}, 2) == []


def test_a_damaged_photo_is_named(photos: dict[str, Path]) -> None:
    photos["5"].write_bytes(photos["5"].read_bytes()[:200])
    with pytest.raises(UserError, match=r"5\.jpg: is damaged"):
        find_duplicates(photos, 2)


def test_pairs_are_written_with_their_splits_and_those_across_are_counted(tmp_path: Path) -> None:
    pairs = [NearDuplicate("a", "b", 0.951), NearDuplicate("b", "c, d", 1.0)]
    splits = {"train": ["a", "b"], "val": [], "test": ["c, d"]}
    path = tmp_path / "near_duplicates.csv"
    assert write_duplicates(path, pairs, splits) == {"pairs": 2, "across_splits": 1}
    assert path.read_text(encoding="utf-8") == (
        "first,second,first_split,second_split,similarity\n"
        "a,b,train,train,0.951\n"
        'b,"c, d",train,test,1.0\n'
    )
