"""Small exports in the formats of labeling tools, with images that show the annotated objects.

Each function writes an export into a directory and returns the expected result of the data stages.
Every object is a rectangle in the color of its class, so that tests can check each mask against its
image.
"""

import contextlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stages import download, filter, images, mask, near_duplicates, split
from tests import ROOT

COLORS = {"cat": (220, 40, 40), "dog": (40, 190, 60), "cow / 牛": (40, 70, 220)}
GRAY = (128, 128, 128)
SIZE = (60, 40)

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""
LEFT, RIGHT = (4, 6, 20, 24), (34, 10, 18, 20)


@dataclass
class Export:
    """An export and the expected result of the data stages.

    Attributes:
        params: the changed parameters.
        objects: for each selected image, by file name, the class of each box.
        images_dropped: how many images are rejected for each reason.
        annotations_dropped: how many annotations are rejected for each reason.
        classes: the class names.
        splits: the stems of each split, if the export states them.
    """

    params: dict[str, Any]
    objects: dict[str, dict[Box, str]]
    images_dropped: dict[str, int] = field(default_factory=dict)
    annotations_dropped: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ("cat", "dog")
    splits: dict[str, list[str]] | None = None


def draw(path: Path, objects: dict[Box, str], size: tuple[int, int] = SIZE, turn: int = 1) -> None:
    """Save an image in the format of its extension; `turn` is its EXIF orientation, 1 or 6."""
    pixels = np.full((size[1], size[0], 3), GRAY, np.uint8)
    for (left, top, width, height), name in objects.items():
        pixels[top : top + height, left : left + width] = COLORS[name]
    shown = Image.fromarray(pixels)
    stored = shown.transpose(Image.Transpose.ROTATE_90) if turn == 6 else shown
    exif = Image.Exif()
    exif[0x0112] = turn
    path.parent.mkdir(parents=True, exist_ok=True)
    lossy = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
    stored.save(path, exif=exif, **lossy)


def polygon(box: Box) -> list[list[float]]:
    left, top, width, height = map(float, box)
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(box: Box, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Encode a box in COCO's uncompressed format, column by column."""
    left, top, width, height = box
    region = np.zeros((size[1], size[0]), np.uint8)
    region[top : top + height, left : left + width] = 1
    flat = region.ravel(order="F").tolist()
    counts, last = [0], 0
    for value in flat:
        if value == last:
            counts[-1] += 1
        else:
            counts.append(1)
        last = value
    return {"size": [size[1], size[0]], "counts": counts}


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, default=lambda v: v.tolist()), encoding="utf-8")


def pair(annotations: str, images: str, split: str | None = None) -> dict[str, str | None]:
    return {"annotations": annotations, "images": images, "split": split}


def from_pairs(*pairs: dict[str, str | None]) -> dict[str, Any]:
    return {"download.files.pairs": list(pairs)}


# --- CVAT ----------------------------------------------------------------------------------------


def _datumaro_image(id: int, file_name: str, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    width, height = size
    link = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
    return {"id": id, "width": width, "height": height, "file_name": file_name, **link}


def _datumaro_annotation(id: int, image_id: int, category_id: int, box: Box) -> dict[str, Any]:
    return {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": polygon(box),
        "area": float(box[2] * box[3]),
        "bbox": list(map(float, box)),
        "iscrowd": 0,
        "attributes": {"occluded": False},
    }


def _datumaro(images: list[Any], annotations: list[Any], names: Iterable[str]) -> dict[str, Any]:
    empty = ("contributor", "date_created", "description", "url", "version", "year")
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": dict.fromkeys(empty, ""),
        "categories": [
            {"id": k, "name": name, "supercategory": ""} for k, name in enumerate(names, start=1)
        ],
        "images": images,
        "annotations": annotations,
    }


def cvat(directory: Path) -> Export:
    """CVAT's "COCO 1.0", written by Datumaro's `coco_instances` exporter.

    `file_name` contains subdirectories (since cvat 1381). Files that differ only in their extension
    have the same id (cvat 7523). Brush masks are run lengths with `iscrowd: 1`, and boxes have an
    empty segmentation.
    """
    for name, objects in {
        "Job1/img 1.jpg": {LEFT: "cat"},
        "Job2/img 1.jpg": {RIGHT: "dog"},
        "Job2/boxes.jpg": {LEFT: "cat"},
        "same.jpg": {LEFT: "cat"},
        "same.png": {RIGHT: "cat"},
    }.items():
        draw(directory / "images" / name, objects)
    brush = _datumaro_annotation(2, 2, 2, RIGHT) | {
        "segmentation": run_lengths(RIGHT),
        "iscrowd": 1,
    }
    box = _datumaro_annotation(3, 3, 1, LEFT) | {"segmentation": []}
    ids = {1: "Job1/img 1.jpg", 2: "Job2/img 1.jpg", 3: "Job2/boxes.jpg"}
    images = [_datumaro_image(id, name) for id, name in ids.items()]
    images += [_datumaro_image(4, "same.jpg"), _datumaro_image(4, "same.png")]
    annotations = [
        _datumaro_annotation(1, 1, 1, LEFT),
        brush,
        box,
        _datumaro_annotation(4, 4, 1, LEFT),
        _datumaro_annotation(5, 4, 1, RIGHT),
    ]
    document = _datumaro(images, annotations, ("cat", "dog"))
    write(directory / "annotations/instances_default.json", document)
    return Export(
        from_pairs(pair("annotations/instances_default.json", "images")) | {"mask.crowd": "paint"},
        {"Job1+img 1.jpg": {LEFT: "cat"}, "Job2+img 1.jpg": {RIGHT: "dog"}},
        {"duplicate_image": 2, "no_valid_annotation": 1},
        {"bbox_only": 1, "unknown_image": 2},
    )


def cvat_without_directories(directory: Path) -> Export:
    """CVAT before its pull request 1381: names without subdirectories, which repeat (cvat 1385).

    Several videos with `frame_000000.PNG` in one project have the same effect (cvat 4993).
    """
    draw(directory / "Job1/img1.jpg", {LEFT: "cat"})
    draw(directory / "Job2/img1.jpg", {RIGHT: "cat"})
    draw(directory / "Job2/img2.jpg", {RIGHT: "cat"})
    images = [
        _datumaro_image(id, name) for id, name in enumerate(("img1.jpg", "img1.jpg", "img2.jpg"))
    ]
    boxes = (LEFT, RIGHT, RIGHT)
    annotations = [_datumaro_annotation(id + 1, id, 1, box) for id, box in enumerate(boxes)]
    write(directory / "instances_default.json", _datumaro(images, annotations, ["cat"]))
    return Export(
        from_pairs(pair("instances_default.json", ".")),
        {"Job2+img2.jpg": {RIGHT: "cat"}},
        {"image_ambiguous": 2},
        {"unknown_image": 2},
        ("cat",),
    )


# --- Datumaro ------------------------------------------------------------------------------------


def datumaro(directory: Path) -> Export:
    """Datumaro's `coco` format (datumaro/plugins/data_formats/coco/exporter.py).

    Files are `annotations/instances_<subset>.json` and `images/<subset>/`. Ids start from 1 in each
    file. Sizes are 0 if Datumaro has not read the image.
    """
    for subset, box, name in (("train", LEFT, "cat"), ("val", RIGHT, "dog")):
        draw(directory / f"images/{subset}/001.png", {box: name})
        images = [_datumaro_image(1, "001.png", (0, 0) if subset == "val" else SIZE)]
        annotation = _datumaro_annotation(1, 1, 1 if name == "cat" else 2, box)
        document = _datumaro(images, [annotation], ("cat", "dog"))
        write(directory / f"annotations/instances_{subset}.json", document)
    return Export(
        from_pairs(
            *(pair(f"annotations/instances_{s}.json", f"images/{s}", s) for s in ("train", "val"))
        ),
        {"001.png": {LEFT: "cat"}, "001-2.png": {RIGHT: "dog"}},
    )


# --- Label Studio --------------------------------------------------------------------------------


def label_studio(directory: Path) -> Export:
    """Label Studio's COCO export (label_studio_sdk/converter).

    Ids start from 0. Names of uploads have a prefix of eight digits, on Windows also `images\\`,
    and since 1.16 the path of Label Studio's storage (label-studio 7294). Local files have URLs.
    """
    names = {
        "images\\cb0618f6-a b.png": "images/cb0618f6-a b.png",
        "..\\..\\label-studio\\media\\upload\\4\\0a1b2c3d-c.png": "images/0a1b2c3d-c.png",
        "/data/local-files/?d=photos%2Fd%20%C3%A9.png": "photos/d é.png",
        "images/99aabbcc-original.png": "originals/images/original.png",
        "/data/upload/1/deadbeef-gone.png": None,
    }
    images, annotations = [], []
    for id, (name, path) in enumerate(names.items()):
        box, kind = (LEFT, 0) if id % 2 else (RIGHT, 1)
        if path:
            draw(directory / path, {box: ("cat", "dog")[kind]})
        images.append({"width": 60, "height": 40, "id": id, "file_name": name})
        annotations.append(
            {
                "id": id,
                "image_id": id,
                "category_id": kind,
                "segmentation": polygon(box),
                "bbox": list(box),
                "ignore": 0,
                "iscrowd": 0,
                "area": box[2] * box[3],
            }
        )
    write(
        directory / "result.json",
        {
            "images": images,
            "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
            "annotations": annotations,
            "info": {"year": 2025, "version": "1.0", "contributor": "Label Studio"},
        },
    )
    return Export(
        from_pairs(pair("result.json", ".")),
        {
            "images+cb0618f6-a b.png": {RIGHT: "dog"},
            "images+0a1b2c3d-c.png": {LEFT: "cat"},
            "photos+d é.png": {RIGHT: "dog"},
            "originals+images+original.png": {LEFT: "cat"},
        },
        {"image_not_found": 1},
        {"unknown_image": 1},
    )


# --- Roboflow ------------------------------------------------------------------------------------


def roboflow(directory: Path) -> Export:
    """Roboflow's "COCO" export.

    `train`, `valid` and `test` contain `_annotations.coco.json` and the images, whose names end in
    `.rf.<hash>.jpg`. Category 0 is the project, the supercategory of the others. Ids start from 0
    in each file.
    """
    objects = {"train": {LEFT: "cat"}, "valid": {RIGHT: "dog"}, "test": {LEFT: "dog", RIGHT: "cat"}}
    expected: dict[str, dict[Box, str]] = {}
    splits = {}
    for number, (name, shown) in enumerate(objects.items()):
        file_name = f"IMG_{number}_jpg.rf.{number:032x}.jpg"
        draw(directory / name / file_name, shown)
        expected[file_name] = shown
        splits[{"valid": "val"}.get(name, name)] = [file_name.removesuffix(".jpg")]
        annotations = [
            {
                "id": id,
                "image_id": 0,
                "category_id": ["cat", "dog"].index(kind) + 1,
                "bbox": list(box),
                "area": box[2] * box[3],
                "segmentation": polygon(box),
                "iscrowd": 0,
            }
            for id, (box, kind) in enumerate(shown.items())
        ]
        image = {"id": 0, "license": 1, "file_name": file_name, "height": 40, "width": 60}
        write(
            directory / name / "_annotations.coco.json",
            {
                "info": {
                    "year": "2025",
                    "version": "1",
                    "description": "from roboflow.com",
                },
                "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}],
                "categories": [
                    {"id": 0, "name": "animals", "supercategory": "none"},
                    {"id": 1, "name": "cat", "supercategory": "animals"},
                    {"id": 2, "name": "dog", "supercategory": "animals"},
                ],
                "images": [image | {"date_captured": "2025-11-01T10:00:00+00:00"}],
                "annotations": annotations,
            },
        )
    pairs = [
        pair(f"{name}/_annotations.coco.json", name, split)
        for name, split in (("train", "train"), ("valid", "val"), ("test", "test"))
    ]
    given = {"split.from": "export", "split.ratios": {"train": 8, "val": 1, "test": 1}}
    return Export(from_pairs(*pairs) | given, expected, splits=splits)


# --- FiftyOne, pycocotools -----------------------------------------------------------------------


def fiftyone(directory: Path) -> Export:
    """FiftyOne's COCODetectionDataset (fiftyone/utils/coco.py): `data/` and `labels.json`.

    Category ids start from 0 if the classes have no ids. Crowds are uncompressed run lengths.
    Attributes are additional fields.
    """
    draw(directory / "data/000001.jpg", {LEFT: "cat"})
    draw(directory / "data/sub/000001.jpg", {RIGHT: "dog"})
    polygons = {"id": 1, "image_id": 1, "category_id": 0, "bbox": list(LEFT), "area": 480.0}
    lengths = {"id": 2, "image_id": 2, "category_id": 1, "bbox": list(RIGHT), "area": 360.0}
    images = [
        {"id": 1, "file_name": "000001.jpg", "height": 40, "width": 60, "license": None},
        {"id": 2, "file_name": "sub/000001.jpg", "height": 40, "width": 60, "license": None},
    ]
    annotations = [
        {**polygons, "segmentation": polygon(LEFT), "iscrowd": 0, "score": 0.5, "weather": "fog"},
        {**lengths, "segmentation": run_lengths(RIGHT), "iscrowd": 1},
    ]
    categories = [
        {"id": id, "name": name, "supercategory": None} for id, name in enumerate(("cat", "dog"))
    ]
    document = {"info": {}, "licenses": [], "categories": categories, "images": images}
    write(directory / "labels.json", {**document, "annotations": annotations})
    return Export(
        from_pairs(pair("labels.json", "data")) | {"mask.crowd": "paint"},
        {"000001.jpg": {LEFT: "cat"}, "sub+000001.jpg": {RIGHT: "dog"}},
    )


def pycocotools(directory: Path) -> Export:
    """Results with compressed run lengths, loaded and written by pycocotools' `COCO.loadRes`."""
    draw(directory / "images/7.png", {LEFT: "cat", RIGHT: "dog"})
    ground_truth = COCO()
    ground_truth.dataset = {
        "images": [{"id": 700, "file_name": "7.png", "width": 60, "height": 40}],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [],
    }
    results = []
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth.createIndex()
        for category_id, box in ((17, LEFT), (18, RIGHT)):
            encoded = coco_mask.frPyObjects(run_lengths(box), 40, 60)
            encoded["counts"] = encoded["counts"].decode()
            result = {"image_id": 700, "category_id": category_id, "score": 0.9}
            results.append({**result, "segmentation": encoded})
        write(directory / "results.json", ground_truth.loadRes(results).dataset)
    return Export(
        from_pairs(pair("results.json", "images")), {"7.png": {LEFT: "cat", RIGHT: "dog"}}
    )


# --- Everything that can go wrong ----------------------------------------------------------------


def by_hand(directory: Path) -> Export:
    """An export of a custom script with many image formats.

    Ids and sizes are strings or missing. Images are rotated by EXIF and annotated as displayed or
    as stored. Some images are unusable.
    """
    tall = (SIZE[1], SIZE[0])
    high = (6, 4, 24, 20)
    formats = (
        "a.png",
        "b.webp",
        "c.tiff",
        "d.jpg",
        "e.bmp",
        "deep/er/a.png",
        "ünï 写真.png",
        "A.PNG",
    )
    images: list[dict[str, Any]] = [{"id": f"id {name}", "file_name": name} for name in formats]
    for name in formats:
        draw(directory / name, {LEFT: "cow / 牛"})
    expected = {name.replace("/", "+"): {LEFT: "cow / 牛"} for name in formats}
    expected["A-2.PNG"] = expected.pop("A.PNG")
    boxes = dict.fromkeys((image["id"] for image in images), LEFT)

    draw(directory / "shown.jpg", {high: "cow / 牛"}, tall, turn=6)
    draw(directory / "stored.jpg", {high: "cow / 牛"}, tall, turn=6)
    stored_box = (high[1], tall[0] - high[0] - high[2], high[3], high[2])
    expected |= {"shown.jpg": {high: "cow / 牛"}, "stored.jpg": {stored_box: "cow / 牛"}}
    images += [
        {"id": "7", "file_name": "shown.jpg", "width": "40", "height": "60"},
        {"id": 8, "file_name": "stored.jpg", "width": 60.0, "height": 40.0},
    ]
    boxes |= {"7": high, 8: stored_box}

    draw(directory / "unsure.jpg", {high: "cow / 牛"}, tall, turn=6)
    draw(directory / "other size.png", {LEFT: "cow / 牛"})
    (directory / "damaged.png").write_bytes((directory / "a.png").read_bytes()[:-30])
    images += [
        {"id": "unsure", "file_name": "unsure.jpg"},
        {"id": "size", "file_name": "other size.png", "width": 61, "height": 40},
        {"id": "damaged", "file_name": "damaged.png"},
        {"id": "gone", "file_name": "gone.png", "width": 60, "height": 40},
        {"id": "outside", "file_name": "../../outside.png", "width": 60, "height": 40},
        {"id": "nameless", "width": 60, "height": 40},
    ]
    draw(directory.parent / "outside.png", {LEFT: "cow / 牛"})
    lost = ["unsure", "size", "damaged", "gone", "outside", "nameless", "never heard of"]
    annotations = [
        {"image_id": id, "category_id": "cow", "segmentation": polygon(box)}
        for id, box in [*boxes.items(), *((id, LEFT) for id in lost)]
    ]
    categories = [{"id": "cow", "name": "cow / 牛"}, {"id": "pig", "name": "pig"}]
    write(
        directory / "mine.json",
        {"images": images, "annotations": annotations, "categories": categories},
    )
    return Export(
        from_pairs(pair("mine.json", ".")),
        expected,
        {
            "orientation_unknown": 1,
            "image_size": 1,
            "image_damaged": 1,
            "image_not_found": 2,
            "malformed_image": 1,
        },
        {"unknown_image": 7},
        ("cow / 牛",),
    )


EXPORTS: list[Callable[[Path], Export]] = [
    cvat,
    cvat_without_directories,
    datumaro,
    label_studio,
    roboflow,
    fiftyone,
    pycocotools,
    by_hand,
]


OWN = {
    "download.source": "files",
    "filter.classes": "all",
    "split.ratios": {"train": 1, "val": 0, "test": 0},
    "runtime.workers": 0,
}


def run_data_stages(
    project: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the data stages from `download` to `split` in the directory `project`.

    Args:
        project: an existing directory, which becomes the current one.
        changes: values by parameter, such as "filter.max_images".
        monkeypatch: undoes the change of directory after the test.
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key, value in {**OWN, **changes}.items():
        *sections, name = key.split(".")
        section = params
        for part in sections:
            section = section[part]
        section[name] = value
    text = yaml.safe_dump(params, allow_unicode=True)
    (project / "params.yaml").write_text(text, encoding="utf-8")
    (project / "data").mkdir(exist_ok=True)
    shutil.copy(ROOT / "data/exclude.csv", project / "data")
    monkeypatch.chdir(project)
    for stage in (download, filter, images, mask, near_duplicates, split):
        stage.main()


def shown_labels(pixels: np.ndarray[Any, Any], classes: Iterable[str]) -> np.ndarray[Any, Any]:
    """The label of each pixel (H, W), whose color is nearest to the color that JPEG changed."""
    colors = np.array([GRAY, *(COLORS[name] for name in classes)], np.int64)
    distances = np.abs(pixels[:, :, None].astype(np.int64) - colors).sum(axis=3)
    return distances.argmin(axis=2)


def expected_labels(
    objects: dict[Box, str], classes: tuple[str, ...], shape: tuple[int, int]
) -> np.ndarray[Any, Any]:
    labels = np.zeros(shape, np.uint8)
    for (left, top, width, height), name in objects.items():
        labels[top : top + height, left : left + width] = classes.index(name) + 1
    return labels


def reasons(rows: Iterable[dict[str, str]], kind: str) -> dict[str, int]:
    """Count each reason in the rows of rejected.csv; `kind` is "image" or "annotation"."""
    return dict(
        Counter(row["reason"] for row in rows if bool(row["annotation_id"]) == (kind != "image"))
    )
