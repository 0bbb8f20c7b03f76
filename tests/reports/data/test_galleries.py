"""Examples of classes and of rejected entries."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rejections import Reason
from cocoseg.reports.data.galleries import (
    Inputs,
    choose_class_examples,
    rejected_annotations,
    rejected_images,
)
from tests.coco_files import annotation, image, select_from, write_instances
from tests.data_statistics import measured


def test_examples_are_the_median_the_extremes_and_the_quartiles(tmp_path: Path) -> None:
    def square(side: float) -> Any:
        return [[1.0, 1.0, 1.0 + side, 1.0, 1.0 + side, 1.0 + side, 1.0, 1.0 + side]]

    images = [image(n, 100, 100) for n in range(1, 8)]
    entries = [annotation(n, n, square(10.0 * n)) for n in range(1, 8)]
    entries += [annotation(20 + n, 2, square(3.0 + n)) for n in range(3)]
    entries += [annotation(30, 6, square(90.0), iscrowd=1)]
    entries += [annotation(31, 3, [[3.1, 3.1, 3.2, 3.1, 3.2, 3.2]])]  # no pixel
    path = write_instances(tmp_path / "x.json", images, entries)
    selection = select_from(path).instances
    data = measured(selection, tmp_path / "masks")
    examples = choose_class_examples(data, 1)
    assert [(data.images[e.image].id, e.caption) for e in examples] == [
        (4, "median size"),
        (2, "smallest: 3 x 3 pixels"),
        (7, "largest: 49% of the image"),
        (2, "most objects: 4 in this image"),
        # The image at the lower quartile is also the one with most objects.
        (6, "upper quartile of size"),
    ]
    assert [data.areas[e.annotation] for e in examples if e.annotation is not None] == [9]
    assert choose_class_examples(data, 2) == []


LEFT = [[5.0, 20.0, 40.0, 20.0, 40.0, 60.0]]
RIGHT = [[60.0, 20.0, 95.0, 20.0, 95.0, 60.0]]


def test_rejected_entries_prefer_selected_images_and_show_the_rejected_outline(
    tmp_path: Path,
) -> None:
    images = [
        image(1, 100, 80),
        image(2, 100, 80),
        image(3, 100, 80),
        image(1, 100, 80, file_name="again.jpg"),
    ]
    odd = [[*RIGHT[0], 70.0]]
    entries = [
        annotation(1, 1, LEFT),
        annotation(1, 1, RIGHT),  # a duplicate id
        annotation(10, 2, odd),  # its image has no valid annotation
        annotation(11, 3, odd),
        annotation(12, 3, LEFT),
    ]
    path = write_instances(tmp_path / "x.json", images, entries)
    selection = select_from(path)
    data = measured(selection.instances, tmp_path / "masks")
    (tmp_path / "images").mkdir()
    for entry in selection.instances.images:
        Image.new("RGB", (100, 80), (90, 90, 90)).save(tmp_path / "images" / entry.file_name)
    inputs = Inputs(
        source=read_instances(path).instances,
        rejections=selection.rejections,
        images=tmp_path / "images",
        masks=tmp_path / "masks",
        near_duplicates=[],
        splits={},
        labels={10: 1, 20: 2},
    )
    found = {gallery.reason: gallery for gallery in rejected_annotations(data, inputs)}
    polygon_odd = found[Reason.POLYGON_ODD]
    assert polygon_odd.count == 2
    assert [thumbnail.image for thumbnail in polygon_odd.examples] == ["3.jpg"]
    (duplicate,) = found[Reason.DUPLICATE_ANNOTATION].examples
    assert duplicate.jpeg and duplicate.caption == "annotation 1, cat"
    with Image.open(io.BytesIO(duplicate.jpeg)) as drawn:
        red = np.asarray(drawn)[..., 0] > 180
    assert red[:, red.shape[1] // 2 :].any() and not red[:, : red.shape[1] // 2].any()
    by_reason = {gallery.reason: gallery for gallery in rejected_images(data, inputs)}
    assert [t.image for t in by_reason[Reason.DUPLICATE_IMAGE].examples] == ["1.jpg"]
