"""Other libraries read `data/selection.json`, polygons of `CocoWriter`, and masks.

Other libraries than pycocotools and torchvision are optional: their tests are skipped if they are
not installed.
"""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cocoseg.coco.instances import read_instances
from cocoseg.coco.writer import CocoWriter
from cocoseg.core.labels import read_classes, read_mask, write_classes, write_mask
from cocoseg.curation.selection import select, write_selection
from cocoseg.params.download import SampleParams
from cocoseg.sources.synthetic import SampleSource
from tests.coco_files import annotation, image, select_from, write_instances

CLASSES = ["person", "bicycle", "car", "motorcycle", "airplane"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a small sample, with some images without objects."""
    directory = tmp_path_factory.mktemp("data")
    source = SampleSource(SampleParams(images=24, width=128, height=96, seed=0), workers=0)
    source.write_annotations(directory / "instances.json")
    selection = select(
        read_instances(directory / "instances.json"),
        CLASSES,
        max_instances=10,
        max_images=20,
        prefer="random",
        seed=0,
        out_of_bounds="clip",
        empty_fraction=0.2,
    )
    write_selection(directory / "selection.json", selection.instances)
    (directory / "images").mkdir()
    source.fetch_images(selection.instances.images, directory / "images")
    return directory


@pytest.fixture(scope="module")
def selection(data: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((data / "selection.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def coco(data: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(data / "selection.json"))


def test_pycocotools_selects_annotations_by_area(coco: COCO, selection: dict[str, Any]) -> None:
    areas = {a["id"]: coco.annToMask(a).sum() for a in selection["annotations"]}
    middle = float(np.median(list(areas.values())))
    small = set(coco.getAnnIds(areaRng=[0, middle]))
    assert 0 < len(small) < len(areas)
    assert small == {id for id, area in areas.items() if area < middle}


def test_coco_eval_finds_the_ground_truth_equal_to_itself(
    coco: COCO, selection: dict[str, Any]
) -> None:
    results = [
        {k: a[k] for k in ("image_id", "category_id", "segmentation", "bbox")} | {"score": 1.0}
        for a in selection["annotations"]
        if not a["iscrowd"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in ("segm", "bbox"):
            scored = COCOeval(coco, coco.loadRes(json.loads(json.dumps(results))), kind)
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
            assert scored.stats[0] == pytest.approx(1.0)


def test_torchvision_reads_boxes_masks_and_labels(data: Path, selection: dict[str, Any]) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = datasets.wrap_dataset_for_transforms_v2(
            datasets.CocoDetection(data / "images", data / "selection.json"),
            target_keys=("boxes", "masks", "labels"),
        )
    targets = [target for _, target in dataset if "labels" in target]  # has objects
    assert sum(len(target["labels"]) for target in targets) == len(selection["annotations"])
    for target in targets:
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            ys, xs = np.nonzero(mask.numpy())
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_datumaro_reads_all_annotations(
    data: Path, selection: dict[str, Any], tmp_path: Path
) -> None:
    datumaro = pytest.importorskip("datumaro")
    (tmp_path / "annotations").mkdir()
    shutil.copy(data / "selection.json", tmp_path / "annotations/instances_train.json")
    shutil.copytree(data / "images", tmp_path / "images/train")
    items = list(datumaro.Dataset.import_from(str(tmp_path), "coco_instances"))
    assert len(items) == len(selection["images"])
    # Each polygon of an annotation counts.
    assert {a.group for item in items for a in item.annotations} == {
        a["id"] for a in selection["annotations"]
    }


def test_supervision_reads_all_annotations(data: Path, selection: dict[str, Any]) -> None:
    supervision = pytest.importorskip("supervision")
    dataset = supervision.DetectionDataset.from_coco(
        str(data / "images"), str(data / "selection.json"), force_masks=True
    )
    assert sum(len(found) for _, _, found in dataset) == len(selection["annotations"])


def test_globox_reads_all_boxes(data: Path, selection: dict[str, Any]) -> None:
    globox = pytest.importorskip("globox")
    annotations = globox.AnnotationSet.from_coco(data / "selection.json")
    assert len(annotations) == len(selection["images"])
    assert sum(len(read.boxes) for read in annotations) == len(selection["annotations"])


# --- Polygons of predictions ----------------------------------------------------------------------


def random_labels() -> NDArray[np.uint8]:
    """Blobs of two classes, (120, 160), with holes and pixels that touch at corners."""
    random = np.random.default_rng(0)
    coarse = random.choice(3, size=(30, 40), p=(0.5, 0.3, 0.2)).repeat(4, 0).repeat(4, 1)
    noise = random.random(coarse.shape) < 0.05
    labels: NDArray[np.uint8] = np.where(noise, 1, coarse).astype(np.uint8)
    return labels


def painted(path: Path, names: list[str]) -> NDArray[np.uint8]:
    """The pixels of all outlines in a COCO file of one image."""
    document = json.loads(path.read_text(encoding="utf-8"))
    (entry,) = document["images"]
    labels = np.zeros((entry["height"], entry["width"]), np.uint8)
    label_of = {
        category["id"]: names.index(category["name"]) for category in document["categories"]
    }
    for entry in document["annotations"]:
        if entry["segmentation"]:
            encoded = coco_mask.frPyObjects(entry["segmentation"], *labels.shape)
            if isinstance(encoded, list):
                encoded = coco_mask.merge(encoded)
            labels[coco_mask.decode(encoded).astype(bool)] = label_of[entry["category_id"]]
    return labels


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """`random_labels` as polygons, and the image."""
    labels = random_labels()
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    Image.fromarray(labels).save(tmp_path / "images/train/1.png")
    writer = CocoWriter(["background", "cat", "dog"], "polygons")
    writer.add("1.png", labels)
    writer.write(tmp_path / "annotations/instances_train.json")
    return tmp_path


def test_polygons_keep_every_pixel_in_label_studios_converter(predictions: Path) -> None:
    imports = pytest.importorskip("label_studio_sdk.converter.imports.coco")
    converter = pytest.importorskip("label_studio_sdk.converter")
    tasks = predictions / "tasks.json"
    with contextlib.redirect_stdout(io.StringIO()):
        imports.convert_coco_to_ls(
            str(predictions / "annotations/instances_train.json"),
            str(tasks),
            image_root_url=f"{predictions}/images/train/",
        )
    numbered = [{"id": 1, **task} for task in json.loads(tasks.read_text(encoding="utf-8"))]
    tasks.write_text(json.dumps(numbered), encoding="utf-8")
    config = (predictions / "tasks.label_config.xml").read_text(encoding="utf-8")
    converter.Converter(config, str(predictions)).convert_to_coco(
        str(tasks), str(predictions / "exported"), is_dir=False
    )
    result = painted(predictions / "exported/result.json", ["background", "cat", "dog"])
    assert (result == random_labels()).all()


def test_polygons_keep_every_pixel_in_datumaro(predictions: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    dataset = datumaro.Dataset.import_from(str(predictions), "coco_instances")
    dataset.export(str(predictions / "exported"), "coco_instances")
    result = painted(
        predictions / "exported/annotations/instances_train.json", ["background", "cat", "dog"]
    )
    assert (result == random_labels()).all()


@pytest.mark.parametrize(("shift", "ignored"), [(0, []), (1, []), (4, [(6, 2, 12, 8)])])
def test_a_box_around_an_outline_is_not_ignored(
    shift: int, ignored: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """Label Studio exports a box beside each polygon that it imported."""
    box = annotation(2, 1, [], bbox=[2 + shift, 2, 6, 6])
    path = write_instances(tmp_path / "a.json", [image(1)], [annotation(1, 1), box])
    (kept,) = select_from(path).instances.images
    assert kept.ignored == ignored


# --- Masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "read"), [("cv2", "imread"), ("imageio.v3", "imread"), ("skimage.io", "imread")]
)
def test_a_library_that_expands_palettes_reads_the_colors_of_classes_json(
    module: str, read: str, tmp_path: Path
) -> None:
    library = pytest.importorskip(module)
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    write_mask(tmp_path / "mask.png", labels)
    write_classes(tmp_path / "classes.json", ["cat", "dog"])
    pixels = getattr(library, read)(str(tmp_path / "mask.png"))
    pixels = pixels[..., ::-1] if module == "cv2" else pixels  # BGR
    entries = json.loads((tmp_path / "classes.json").read_text(encoding="utf-8"))
    label_of = {entry["color"]: entry["label"] for entry in entries}
    assert [[label_of["#" + p.tobytes().hex()] for p in row] for row in pixels] == labels.tolist()


def test_pillow_and_numpy_read_the_labels_of_a_mask(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    write_mask(tmp_path / "mask.png", labels)
    write_classes(tmp_path / "classes.json", ["cat", "dog"])
    assert (np.asarray(Image.open(tmp_path / "mask.png")) == labels).all()
    assert (read_mask(tmp_path / "mask.png") == labels).all()
    assert read_classes(tmp_path / "classes.json") == ["cat", "dog"]
