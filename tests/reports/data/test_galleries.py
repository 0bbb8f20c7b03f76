"""The choice of examples of a class."""

from pathlib import Path
from typing import Any

from cocoseg.reports.data.galleries import choose_class_examples
from tests.coco_files import annotation, image, select_from, write_instances
from tests.data_statistics import measured


def test_examples_are_the_median_the_extremes_and_the_quartiles(tmp_path: Path) -> None:
    def square(side: float) -> Any:
        return [[1.0, 1.0, 1.0 + side, 1.0, 1.0 + side, 1.0 + side, 1.0, 1.0 + side]]

    images = [image(n, 100, 100) for n in range(1, 8)]
    entries = [annotation(n, n, square(10.0 * n)) for n in range(1, 8)]
    entries += [annotation(20 + n, 2, square(3.0 + n)) for n in range(3)]
    entries += [annotation(30, 6, square(90.0), iscrowd=1)]
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
