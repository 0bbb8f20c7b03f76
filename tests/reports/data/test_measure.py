"""Statistics of a selection, compared with an independent count over decoded masks."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from cocoseg.coco.instances import SIZES, Instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX, read_mask
from cocoseg.reports.data.measure import GRID, measure
from cocoseg.sources.synthetic.scenes import annotations_json
from tests.coco_files import annotation, image, select_from, write_instances
from tests.data_statistics import measured
from tests.mirror import mirror_document, needs_mirror

CLASSES = ("person", "bicycle", "car", "motorcycle", "airplane")


def painted(directory: Path, document: str) -> tuple[Instances, Path]:
    (directory / "instances.json").write_text(document)
    selection = select_from(directory / "instances.json", CLASSES).instances
    (directory / "masks").mkdir()
    write_masks(selection, directory / "masks", overlap="last", crowd="ignore", workers=1)
    return selection, directory / "masks"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Instances, Path]:
    return painted(tmp_path_factory.mktemp("sample"), annotations_json(60, 128, 96, seed=0))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Instances, Path]:
    document = json.dumps(mirror_document("val2017"))
    return painted(tmp_path_factory.mktemp("real"), document)


def decoded(selection: Instances) -> list[tuple[int, int, bool, Any]]:
    """The image id, label, crowd flag and pixels (H, W) of each annotation, by pycocotools."""
    sizes = {i.id: (i.height, i.width) for i in selection.images}
    found = []
    for a in selection.annotations:
        height, width = sizes[a.image_id]
        segmentation = json.loads(bytes(a.segmentation))
        if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
            rle = segmentation
        else:
            rle = coco_mask.frPyObjects(segmentation, height, width)
        rle = coco_mask.merge(rle) if isinstance(rle, list) else rle
        found.append((a.image_id, a.category_id, a.iscrowd == 1, coco_mask.decode(rle) > 0))
    return found


@pytest.mark.parametrize("data", ["sample", pytest.param("real", marks=needs_mirror)])
def test_the_figures_match_an_independent_count(data: str, request: pytest.FixtureRequest) -> None:
    selection, masks = request.getfixturevalue(data)
    figures = measure(selection, masks, 1).figures()
    regions = decoded(selection)
    objects = [r for r in regions if not r[2]]
    areas = [int(pixels.sum()) for *_, pixels in objects]
    per_image = Counter(image_id for image_id, *_ in objects)
    assert figures["images"] == len(selection.images)
    assert figures["instances"] == len(objects) > 30
    assert figures["crowd_regions"] == len(regions) - len(objects)
    assert figures["instances_per_image"]["max"] == max(per_image.values())
    mean = len(objects) / len(selection.images)
    assert figures["instances_per_image"]["mean"] == pytest.approx(mean, abs=1e-6)
    bounds = [0, 32**2, 96**2, 1 << 40]
    expected = dict(zip(SIZES, np.histogram(areas, bounds)[0].tolist(), strict=True))
    assert {size: figures["objects"][size] for size in SIZES} == expected
    assert figures["objects"]["tiny"] == sum(area < 16 for area in areas)
    # A pixel that three objects cover counts twice.
    depths = Counter[int]()
    for entry in selection.images:
        own = [pixels for image_id, _, _, pixels in objects if image_id == entry.id]
        if own:
            depths.update(np.sum(own, axis=0).ravel().tolist())
    overlaps = sum((depth - 1) * n for depth, n in depths.items() if depth > 1)
    assert overlaps > 0
    fraction = overlaps / sum(areas)
    assert figures["fractions"]["overlap"] == pytest.approx(fraction, abs=1e-6)
    labels = [read_mask(masks / f"{i.stem}.png") for i in selection.images]
    ignored = sum(int((mask == IGNORE_INDEX).sum()) for mask in labels)
    fraction = ignored / sum(mask.size for mask in labels)
    assert figures["fractions"]["ignored"] == pytest.approx(fraction, abs=1e-6)
    for label, name in enumerate(CLASSES, start=1):
        of_class = [
            int(pixels.sum()) for _, k, crowd, pixels in regions if k == label and not crowd
        ]
        assert figures["classes"][name] == {
            "images": len({image_id for image_id, k, *_ in regions if k == label}),
            "instances": len(of_class),
            "median_area": float(np.median(of_class)),
        }


def test_positions_count_the_labels_at_grid_points_of_the_masks(
    sample: tuple[Instances, Path],
) -> None:
    selection, masks = sample
    data = measure(selection, masks, 1)
    expected = np.zeros_like(data.positions)
    for entry in selection.images:
        mask = read_mask(masks / f"{entry.stem}.png")
        rows = ((np.arange(GRID) + 0.5) * entry.height / GRID).astype(int)
        columns = ((np.arange(GRID) + 0.5) * entry.width / GRID).astype(int)
        points = mask[np.ix_(rows, columns)]
        for label in range(len(data.names)):
            expected[label] += points == label
    np.testing.assert_array_equal(data.positions, expected)


def test_several_processes_give_the_same_statistics(sample: tuple[Instances, Path]) -> None:
    alone, together = (measure(*sample, workers) for workers in (1, 2))
    assert together.figures() == alone.figures()
    np.testing.assert_array_equal(together.positions, alone.positions)
    assert together.side_rows() == alone.side_rows()


def test_cooccurrence_hidden_objects_and_duplicates(tmp_path: Path) -> None:
    square = [[2.0, 2.0, 18.0, 2.0, 18.0, 9.0, 2.0, 9.0]]
    # The same pixels as the square, starting at another corner.
    again = [[18.0, 2.0, 18.0, 9.0, 2.0, 9.0, 2.0, 2.0]]
    inner = [[4.0, 3.0, 8.0, 3.0, 8.0, 6.0, 4.0, 6.0]]
    entries = [
        annotation(1, 1, inner),
        annotation(2, 1, square, category_id=20),
        annotation(3, 1, again, category_id=20),
        annotation(4, 2, square),
        annotation(5, 2, square, category_id=20),
        annotation(6, 3, inner),
        annotation(7, 3, inner, iscrowd=1),
    ]
    path = write_instances(tmp_path / "x.json", [image(n) for n in (1, 2, 3)], entries)
    data = measured(select_from(path).instances, tmp_path / "masks")
    ids = [[data.annotations[index].id for index in pair] for pair in data.duplicates]
    assert ids == [[2, 3], [4, 5], [6, 7]]
    # The dog covers the cat in both images.
    assert data.hidden()[:, 1].tolist() == [True, True, False]
    assert data.hidden()[:, 2].tolist() == [False, False, False]
    assert data.cooccurrence()[1:, 1:].tolist() == [[3, 2], [2, 2]]
    assert data.overlaps.tolist() == [12 + 112, 112, 0]
    assert data.instances()[:, 1:].tolist() == [[1, 2], [1, 1], [1, 0]]
    assert data.ignored_fractions().tolist() == [0, 0, 0]
    assert {side: n for side, n in data.side_counts().items() if n} == {2: 2, 8: 4}


def test_objects_without_a_pixel_are_counted(tmp_path: Path) -> None:
    entries = [annotation(1, 1, [[3.1, 3.1, 3.2, 3.1, 3.2, 3.2]]), annotation(2, 1)]
    path = write_instances(tmp_path / "x.json", [image(1)], entries)
    data = measured(select_from(path).instances, tmp_path / "masks")
    assert data.areas.tolist() == [0, 36]
    assert data.figures()["objects"]["tiny"] == 1
    assert data.side_counts()[0] == 1


def test_images_without_annotations_are_counted_and_measured(tmp_path: Path) -> None:
    images = [image(n) for n in range(1, 5)]
    entries = [annotation(1, 2), annotation(2, 2, iscrowd=1), annotation(3, 3, iscrowd=1)]
    path = write_instances(tmp_path / "x.json", images, entries)
    selection = select_from(path, empty_fraction=1.0).instances
    for workers in (1, 2):
        data = measured(selection, tmp_path / "masks", workers=workers)
        assert [data.images[index].id for index in data.empty_images()] == [1, 4]
        figures = data.figures()
        assert figures["instances_per_image"] == {"mean": 0.25, "median": 0.0, "max": 1}
        assert figures["classes"]["cat"] == {"images": 2, "instances": 1, "median_area": 36.0}
        assert data.boxes.tolist() == [[2, 2, 6, 6]] * 3
        assert data.instance_counts() == {"0": 3, "1": 1}


def test_rectangles_are_polygons_or_run_lengths_that_fill_their_box(tmp_path: Path) -> None:
    box = [[2.0, 2.0, 60.0, 2.0, 60.0, 40.0, 2.0, 40.0]]
    cut = [[2.0, 2.0, 60.0, 2.0, 60.0, 40.0, 20.0, 40.0]]
    runs = {"size": [64, 64], "counts": [0, 64 * 64]}
    wide = [[2.0, 2.0, 60.0, 2.0, 60.0, 10.0, 2.0, 10.0]]
    thin = [[2.0, 2.0, 60.0, 2.0, 60.0, 9.0, 2.0, 9.0]]
    entries = [annotation(n, n, s) for n, s in enumerate((box, cut, runs, wide, thin), start=1)]
    images = [image(n, 64, 64) for n in range(1, 6)]
    path = write_instances(tmp_path / "x.json", images, entries)
    data = measured(select_from(path).instances, tmp_path / "masks")
    assert [data.annotations[index].id for index in data.rectangles()] == [1, 3, 4]


def test_objects_at_the_limits_of_cocos_sizes_count_as_larger(tmp_path: Path) -> None:
    def box(width: float, height: float) -> Any:
        return [[0.0, 0.0, width, 0.0, width, height, 0.0, height]]

    shapes = [box(31, 33), box(32, 32), box(96, 95), box(96, 96)]
    entries = [annotation(n, 1, shape) for n, shape in enumerate(shapes)]
    path = write_instances(tmp_path / "x.json", [image(1, 100, 100)], entries)
    data = measured(select_from(path).instances, tmp_path / "masks")
    assert data.sizes() == {"small": 1, "medium": 2, "large": 1}


def test_the_last_bin_of_objects_per_image_joins_higher_numbers(tmp_path: Path) -> None:
    numbers = {1: 1, 2: 3, 3: 4, 4: 5, 5: 6}
    entries = [annotation(10 * i + n, i) for i, count in numbers.items() for n in range(count)]
    path = write_instances(tmp_path / "x.json", [image(n) for n in numbers], entries)
    data = measured(select_from(path).instances, tmp_path / "masks")
    assert data.instance_counts(3) == {"0": 0, "1": 1, "2": 0, "3": 1, ">3": 3}
    assert data.instance_counts(6) == {"0": 0, "1": 1, "2": 0, "3": 1, "4": 1, "5": 1, "6": 1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "is missing"), (b"no PNG", "is damaged"), (b"", "is damaged")],
)
def test_a_missing_or_damaged_mask_is_an_error(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = write_instances(tmp_path / "x.json", [image(1)], [annotation(1, 1)])
    selection = select_from(path).instances
    measured(selection, tmp_path / "masks")
    mask = tmp_path / "masks/1.png"
    whole = mask.read_bytes()
    mask.unlink()
    if content is not None:
        mask.write_bytes(content)
    with pytest.raises(UserError, match=rf"1\.png {problem}: run `dvc repro --force"):
        measure(selection, tmp_path / "masks", 1)
    mask.write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"1\.png is damaged"):
        measure(selection, tmp_path / "masks", 1)


def test_a_mask_of_another_size_is_an_error(tmp_path: Path) -> None:
    path = write_instances(tmp_path / "x.json", [image(1)], [annotation(1, 1)])
    selection = select_from(path).instances
    measured(selection, tmp_path / "masks")
    selection.images[0].width = 30
    with pytest.raises(UserError, match="is not a mask of 30 x 10 pixels"):
        measure(selection, tmp_path / "masks", 1)
