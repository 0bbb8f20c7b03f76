"""Read and filter an annotation file, compared with pycocotools.

    python -m benchmarks.annotations                     # the sizes of val2014 and train2017
    python -m benchmarks.annotations --images 5000 10000

Each measurement runs in a new process, cocoseg and pycocotools in turns. The file repeats COCO's
annotations (the sample's without the mirror) under new ids. Both select the same annotations by the
same rules. `select` includes the validation of every segmentation; `write` writes JSON with the
area and the box of the painted pixels.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.annotation_files import CLASSES, original_document, write_repeated
from benchmarks.machine import machine, peak_memory
from cocoseg.coco.instances import read_instances
from cocoseg.core.seeding import sort_key
from cocoseg.curation.selection import select, write_selection

MAX_INSTANCES, MAX_IMAGES, SEED = 10, 8000, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[40_504, 118_287])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--measure", choices=["cocoseg", "pycocotools"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure = {"cocoseg": measure_cocoseg, "pycocotools": measure_pycocotools}
        print(json.dumps(measure[arguments.measure](arguments.file)))
        return
    name, document = original_document()
    print(machine("numpy", "pycocotools", "msgspec"))
    print(f"annotations: {name}; medians of {arguments.pairs} pairs of processes, seconds and MiB")
    print(
        f"{'images':>7} {'MiB':>5} {'':12} {'read':>6} {'select':>6} {'write':>6} {'peak MiB':>8}"
    )
    with tempfile.TemporaryDirectory() as directory:
        for images in arguments.images:
            file = Path(directory) / "instances.json"
            write_repeated(file, document, images)
            _compare(file, images, arguments.pairs)


def _compare(file: Path, images: int, pairs: int) -> None:
    runs: dict[str, list[dict[str, Any]]] = {"cocoseg": [], "pycocotools": []}
    for _ in range(pairs):
        for name, results in runs.items():
            command = [sys.executable, "-m", "benchmarks.annotations", "--measure", name, "--file"]
            output = subprocess.run([*command, file], check=True, stdout=subprocess.PIPE).stdout
            results.append(json.loads(output))
    ours, theirs = runs.values()
    if any(run["kept"] != ours[0]["kept"] for run in ours + theirs):
        raise SystemExit("error: cocoseg and pycocotools selected different images")
    megabytes = file.stat().st_size / 2**20
    for name, results in runs.items():
        row = [
            statistics.median(run[key] for run in results) for key in ("read", "select", "write")
        ]
        peak = statistics.median(run["peak"] for run in results)
        figures = " ".join(f"{seconds:6.2f}" for seconds in row)
        print(f"{images:7} {megabytes:5.0f} {name:12} {figures} {peak:8.0f}")
    for steps in (("read", "select"), ("read", "select", "write")):
        ratios = [
            sum(their[step] for step in steps) / sum(our[step] for step in steps)
            for our, their in zip(ours, theirs, strict=True)
        ]
        shown = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        print(
            f"{'':13} {' + '.join(steps)}: {statistics.median(ratios):.1f} times faster ({shown})"
        )
    memory = statistics.median(
        our["peak"] / their["peak"] for our, their in zip(ours, theirs, strict=True)
    )
    print(f"{'':13} memory: {memory:.2f} times that of pycocotools")


def measure_cocoseg(file: Path) -> dict[str, Any]:
    started = time.perf_counter()
    read = read_instances(file)
    was_read = time.perf_counter()
    selection = select(
        read,
        CLASSES,
        max_instances=MAX_INSTANCES,
        max_images=MAX_IMAGES,
        prefer="rare",
        seed=SEED,
    )
    selected = time.perf_counter()
    write_selection(file.with_suffix(".cocoseg"), selection.instances)
    times = [started, was_read, selected, time.perf_counter()]
    return _result(times, [image.id for image in selection.instances.images])


def measure_pycocotools(file: Path) -> dict[str, Any]:
    from pycocotools import mask
    from pycocotools.coco import COCO

    started = time.perf_counter()
    with contextlib.redirect_stdout(None):
        coco = COCO(file)
    was_read = time.perf_counter()
    categories = [coco.getCatIds(catNms=[name])[0] for name in CLASSES]
    annotations = {}
    for image_id in sorted({i for c in categories for i in coco.getImgIds(catIds=c)}):
        image = coco.loadImgs(image_id)[0]
        found = coco.loadAnns(coco.getAnnIds(imgIds=image_id, catIds=categories))
        valid = [annotation for annotation in found if _is_valid(annotation, image)]
        if 0 < len(valid) <= MAX_INSTANCES:
            annotations[image_id] = valid
    classes_of = {i: {a["category_id"] for a in of_image} for i, of_image in annotations.items()}
    images_of = Counter(category for classes in classes_of.values() for category in classes)
    rarity = {c: (images_of[c], order) for order, c in enumerate(categories)}
    kept = sorted(
        annotations,
        key=lambda i: (min(rarity[c] for c in classes_of[i]), sort_key(SEED, "filter", i)),
    )
    kept = sorted(kept[:MAX_IMAGES])
    selection = {
        "images": coco.loadImgs(kept),
        "annotations": [annotation for image_id in kept for annotation in annotations[image_id]],
        "categories": coco.loadCats(categories),
    }
    selected = time.perf_counter()
    for annotation in selection["annotations"]:
        encoded = coco.annToRLE(annotation)
        annotation["area"] = int(mask.area(encoded))
        annotation["bbox"] = mask.toBbox(encoded).tolist()
    file.with_suffix(".pycocotools").write_text(json.dumps(selection))
    return _result([started, was_read, selected, time.perf_counter()], kept)


def _is_valid(annotation: dict[str, Any], image: dict[str, Any]) -> bool:
    segmentation, width, height = annotation["segmentation"], image["width"], image["height"]
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return (
            segmentation["size"] == [height, width]
            and min(counts) >= 0
            and sum(counts) == width * height
        )
    return bool(segmentation) and all(
        len(polygon) >= 6
        and len(polygon) % 2 == 0
        and min(polygon) >= 0
        and max(polygon[0::2]) <= width
        and max(polygon[1::2]) <= height
        for polygon in segmentation
    )


def _result(times: list[float], kept: list[int]) -> dict[str, Any]:
    steps = zip(("read", "select", "write"), times, times[1:], strict=False)
    return {
        **{step: end - start for step, start, end in steps},
        "peak": peak_memory(),
        "kept": [len(kept), hash(tuple(kept))],
    }


if __name__ == "__main__":
    main()
