"""Fraction of planted errors among the first label errors.

One in twenty objects of a sample is dropped, relabeled or shifted by 30% of the sides of its box,
in training and test images alike, and a network is trained on these labels as in
`presets/sample.yaml`. Then errors are planted into the test images `--draws` times, and the label
errors are ranked. With N planted errors, the benchmark reports the fraction of planted errors among
the first N.

Baselines are a random order of the annotations, images by mean IoU, and images by cleanlab's score
(softmin of the pixels' self-confidence; Lad and Mueller, 2023). Baselines that rank images know no
dropped objects and no order within an image: dropped objects are added, and errors spread evenly.

    python -m benchmarks.label_errors --draws 10
    python -m benchmarks.label_errors --directory /tmp/label_errors      # keeps the model
"""

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine
from cocoseg.coco.instances import (
    Annotation,
    Instances,
    RunLengths,
    parse_segmentation,
    read_instances,
)
from cocoseg.coco.rasterize import decode_region, encode_region, rasterize, write_masks
from cocoseg.core.labels import IGNORE_INDEX, Labels
from cocoseg.core.seeding import generator
from cocoseg.curation.selection import select
from cocoseg.curation.splits import split_images
from cocoseg.evaluation.label_errors import LabelError, find, rank_label_errors
from cocoseg.evaluation.object_recall import objects_by_stem
from cocoseg.inference.backends import TorchNetwork
from cocoseg.inference.batches import predict_samples
from cocoseg.inference.confusion import count_confusion, mean_of_defined_ious
from cocoseg.inference.dataset import Sample
from cocoseg.models.weights import load_model, save_model
from cocoseg.params.download import DownloadParams
from cocoseg.params.filter import FilterParams
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams
from cocoseg.params.split import SplitParams
from cocoseg.params.train import TrainParams
from cocoseg.sources.synthetic import SampleSource
from cocoseg.training.checkpoint import CheckpointFile
from cocoseg.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]
IMAGES = 1150
SIZES = {"train": 480, "val": 96, "test": 384}
FRACTION = 0.05
FIRST = 12
"""Number of label errors in the report."""

LEAST_IOU = 0.1
"""Least IoU of a label error's box and that of a dropped object for a person to notice it."""
SHIFT = 0.3
"""Distance of a shift, as a fraction of the sides of the object's box."""


@dataclass(frozen=True)
class Planted:
    """A planted error: its kind, and the annotation before it."""

    kind: str
    original: Annotation


def plant(selection: Instances, seed: int) -> tuple[Instances, list[Planted]]:
    """Return the selection with one in twenty objects dropped, relabeled or shifted."""
    draw = generator(seed, "plant")
    objects = [a for a in selection.annotations if not a.iscrowd]
    chosen = draw.choice(len(objects), round(FRACTION * len(objects)), replace=False).tolist()
    sizes = {image.id: (image.width, image.height) for image in selection.images}
    changed: dict[int, Annotation | None] = {}
    planted = []
    for place, index in enumerate(chosen):
        annotation = objects[index]
        kind = ("dropped", "relabeled", "shifted")[place % 3]
        planted.append(Planted(kind, annotation))
        if kind == "dropped":
            changed[annotation.id] = None
        elif kind == "relabeled":
            others = [c.id for c in selection.categories if c.id != annotation.category_id]
            changed[annotation.id] = msgspec.structs.replace(
                annotation, category_id=int(draw.choice(others))
            )
        else:
            changed[annotation.id] = _shifted(annotation, *sizes[annotation.image_id], draw)
    annotations = [changed.get(a.id, a) for a in selection.annotations]
    kept = [a for a in annotations if a is not None]
    return Instances(selection.images, kept, selection.categories), planted


def _shifted(
    annotation: Annotation, width: int, height: int, draw: np.random.Generator
) -> Annotation:
    """Shift an annotation, away from the edges of the image where possible."""
    polygons = parse_segmentation(annotation.segmentation, width, height)
    assert not isinstance(polygons, RunLengths)  # the sample uses them for crowds only
    points = [np.array(polygon).reshape(-1, 2) for polygon in polygons]
    low = np.min([p.min(axis=0) for p in points], axis=0)
    high = np.max([p.max(axis=0) for p in points], axis=0)
    size = np.array([width, height])
    step = SHIFT * (high - low)
    fits = np.stack([low - step >= 0, high + step <= size], axis=1)
    sign = [-1 if (f[0] and (not f[1] or draw.random() < 0.5)) else 1 for f in fits]
    moved = [np.clip(p + step * sign, 0, size).round(2).ravel().tolist() for p in points]
    return msgspec.structs.replace(annotation, segmentation=msgspec.Raw(msgspec.json.encode(moved)))


@dataclass(frozen=True)
class Seen:
    """The prediction for a test image: labels (H, W), probabilities (classes, H, W)."""

    labels: Labels
    probabilities: NDArray[np.float16]


def prepare(directory: Path) -> tuple[Instances, dict[str, Seen], list[str]]:
    """Draw the sample, plant errors, train unless a model exists, and predict the test images.

    Returns:
        The test images with their original annotations, the predictions by stem, and the classes.
    """
    params = load_params(ROOT / "presets/sample.yaml")
    sample = params[DownloadParams].sample.model_copy(update={"images": IMAGES})
    source = SampleSource(sample, params[RuntimeParams].worker_count())
    source.write_annotations(directory / "instances.json")
    options = params[FilterParams]
    selection = select(
        read_instances(directory / "instances.json"),
        options.classes,
        max_instances=options.max_instances,
        max_images=sum(SIZES.values()),
        prefer=options.prefer,
        seed=options.seed,
    ).instances
    images, masks = directory / "images", directory / "masks"
    for path in (images, masks):
        path.mkdir(exist_ok=True)
    source.fetch_images(selection.images, images)
    noisy, _ = plant(selection, seed=0)
    write_masks(noisy, masks, overlap="last", crowd="ignore", workers=1)
    splits = split_images(selection, SIZES, params[SplitParams].seed)
    samples = {
        name: [Sample(images / f"{stem}.jpg", masks / f"{stem}.png") for stem in stems]
        for name, stems in splits.items()
    }
    cpu, file = torch.device("cpu"), directory / "model.safetensors"
    if not file.exists():
        result = train(
            options.classes,
            samples["train"],
            samples["val"],
            params[TrainParams],
            device=cpu,
            workers=0,
            checkpoint=CheckpointFile(directory / "checkpoint.pt", "label_errors"),
        )
        save_model(file, result.model, result.card)
    network = TorchNetwork(*load_model(file), cpu)
    seen = {
        splits["test"][found.index]: Seen(
            found.labels.numpy(), found.probabilities.numpy().astype(np.float16)
        )
        for found in predict_samples(network, samples["test"], batch_size=16, workers=0)
    }
    kept = [image for image in selection.images if image.stem in seen]
    ids = {image.id for image in kept}
    annotations = [a for a in selection.annotations if a.image_id in ids]
    return Instances(kept, annotations, selection.categories), seen, list(network.card.classes)


def points_at(label_error: LabelError, planted: Planted, box: tuple[int, int, int, int]) -> bool:
    """Whether a person who looks at the label error notices the planted error in `box`."""
    if planted.kind != "dropped" or label_error.image_id != planted.original.image_id:
        return label_error.annotation_id == planted.original.id
    left, top, width, height = box
    across = min(label_error.x + label_error.width, left + width) - max(label_error.x, left)
    down = min(label_error.y + label_error.height, top + height) - max(label_error.y, top)
    both = max(across, 0) * max(down, 0)
    return both / (width * height + label_error.width * label_error.height - both) >= LEAST_IOU


def audit(
    test: Instances, seen: Mapping[str, Seen], classes: list[str], seed: int
) -> tuple[dict[str, float], Counter[str], Counter[str]]:
    """The fraction of planted errors among the first N of each order, and the numbers of errors
    found and planted by kind."""
    noisy, planted = plant(test, seed)
    of_image: dict[int, list[Annotation]] = defaultdict(list)
    for annotation in noisy.annotations:
        of_image[annotation.image_id].append(annotation)
    objects = objects_by_stem(noisy)
    findings, by_iou, by_cleanlab = [], {}, {}
    for image in test.images:
        ground_truth = rasterize(
            of_image[image.id], image.width, image.height, overlap="last", crowd="ignore"
        )
        labels = seen[image.stem].labels
        probabilities = seen[image.stem].probabilities.astype(np.float32)
        findings.append(find(objects[image.stem], ground_truth, labels, probabilities))
        by_iou[image.id] = mean_of_defined_ious(count_confusion(ground_truth, labels, len(classes)))
        by_cleanlab[image.id] = softmin_score(ground_truth, probabilities)
    label_errors = rank_label_errors(
        [(image.id, image.file_name) for image in test.images], findings, classes
    )
    count = len(planted)
    boxes = [_box(p.original, test) for p in planted]
    left = dict(enumerate(planted))
    found: Counter[str] = Counter()
    hits = []
    for label_error in label_errors[:count]:
        number = next((n for n, p in left.items() if points_at(label_error, p, boxes[n])), None)
        hits.append(number is not None)
        if number is not None:
            found[left.pop(number).kind] += 1
    mistakes = Counter(p.original.image_id for p in planted)
    dropped = Counter(p.original.image_id for p in planted if p.kind == "dropped")
    things = {i.id: len(objects[i.stem]) + dropped[i.id] for i in test.images}
    precision = {
        f"first {FIRST} label errors": mean(hits[:FIRST]),
        "label errors": mean(hits),
        "cleanlab's image score": _by_image(by_cleanlab, mistakes, things, count),
        "images by mean IoU": _by_image(by_iou, mistakes, things, count),
        "random": count / sum(things.values()),
    }
    return precision, found, Counter(p.kind for p in planted)


def softmin_score(ground_truth: Labels, probabilities: NDArray[np.float32]) -> float:
    """Cleanlab's label quality of an image: the mean probability of the pixels' labels, weighted
    by softmin at temperature 0.1."""
    counted = ground_truth != IGNORE_INDEX
    labels = np.where(counted, ground_truth, 0)[None].astype(np.intp)
    own = np.take_along_axis(probabilities, labels, axis=0)[0][counted].astype(np.float64)
    weights = np.exp((1 - own) / 0.1)
    return float((own * weights).sum() / weights.sum())


def _by_image(
    quality: Mapping[int, float], mistakes: Counter[int], things: Mapping[int, int], count: int
) -> float:
    """The fraction of errors among the first `count` objects of the images of lowest quality.

    The errors of the last image are spread evenly over its objects.
    """
    found = looked_at = 0.0
    for image_id in sorted(quality, key=lambda i: (quality[i], i)):
        part = min(1.0, (count - looked_at) / max(things[image_id], 1))
        found += part * mistakes[image_id]
        looked_at += part * things[image_id]
        if looked_at >= count:
            break
    return found / count


def _box(annotation: Annotation, test: Instances) -> tuple[int, int, int, int]:
    image = next(i for i in test.images if i.id == annotation.image_id)
    segmentation = parse_segmentation(annotation.segmentation, image.width, image.height)
    region = decode_region(encode_region(segmentation, image.width, image.height))
    height, width = region.pixels.shape
    return region.left, region.top, width, height


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    print(machine("torch", "scipy"), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        test, seen, classes = prepare(directory)
    rows, found, planted = [], Counter[str](), Counter[str]()
    for seed in range(1, options.draws + 1):
        precision, found_now, planted_now = audit(test, seen, classes, seed)
        rows.append(precision)
        found += found_now
        planted += planted_now
    print(f"{len(test.images)} test images, {planted.total() // len(rows)} planted errors per draw")
    for order in rows[0]:
        values = [row[order] for row in rows]
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{order:<24} {mean(values):.2f}   ({spread})")
    print("found:", ", ".join(f"{found[kind]} of {planted[kind]} {kind}" for kind in planted))


if __name__ == "__main__":
    main()
