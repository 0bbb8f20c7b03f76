"""Damaged annotation files, from JSON to masks: each is used or refused, and nothing crashes.

    python -m tests.fuzz_annotations --cases 200000          # a long run
    python -m tests.fuzz_annotations --first 4711 --cases 1  # one case

The content of case N never changes. Cases run in a worker process with limited memory and time. A
native crash, a hang or an excessive allocation ends the worker, and the last number that it printed
identifies the case.
"""

import argparse
import copy
import csv
import json
import logging
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.coco.rejections import write_rejections
from cocoseg.core.errors import UserError
from cocoseg.curation.selection import select, write_selection
from cocoseg.curation.selection_log import log_selection, mostly_crowd
from cocoseg.sources.synthetic.scenes import annotations_json
from tests import ROOT
from tests.mirror import MIRROR, mirror_document

CLASSES = ["person", "bicycle", "car", "motorcycle", "airplane"]
MEMORY = 4 << 30
"""Bytes that a worker may allocate after its start."""
SECONDS = 30
"""Time limit of a case."""
BATCH = 2000
"""Cases per worker."""

Document = dict[str, Any]
LISTS = ["images", "annotations", "categories"]

# Placeholders for JSON that json.dumps cannot write: "<deep>" becomes 100,000 brackets.
SPELLED = {
    "<deep>": "[" * 100_000 + "]" * 100_000,
    "<digits>": "9" * 5000,
    "<infinite>": "1e999",
    "<twice>": '{"id": 1, "id": 2}',
}
NUMBERS = [0, 1, -1, 0.5, 3.0, -0.0, 1e-300, 1e308, -1e308, 2**31, 2**32, 2**63, -(2**63) - 1]
NUMBERS += [2**64, 10**30, 10**400, float("nan"), float("inf"), -float("inf")]
TEXTS = [
    "",
    "1",
    "é",
    "\ud800",
    "a\nb",
    "\0",
    "x" * 100_000,
    "../../x.jpg",
    "/etc/passwd",
    ".",
    "..",
]
TEXTS += [
    "a/b.jpg",
    "a\\b.jpg",
    "C:x.jpg",
    "nul\0.jpg",
    "a\ud800.jpg",
    "=1+1.jpg",
    "é" * 150,
    "a .",
]
VALUES = [None, True, False, [], {}, [[]], [[[]]], [None], {"id": 1}, *NUMBERS, *TEXTS, *SPELLED]


def base_documents() -> list[Document]:
    """Annotations of the sample, and of COCO if the mirror exists."""
    documents = [json.loads(annotations_json(60, 96, 64, seed=0))]
    if MIRROR.is_dir():
        documents += [mirror_document("train2017"), mirror_document("val2017")]
    return documents


def make_case(number: int, documents: list[Document]) -> bytes:
    """Create the content of damaged file `number`."""
    rng = random.Random(number)
    source = rng.choice(documents)
    images = rng.sample(source["images"], 3)
    ids = {image["id"] for image in images}
    document: Document = copy.deepcopy(
        {
            "images": images,
            "annotations": [a for a in source["annotations"] if a["image_id"] in ids],
            "categories": source["categories"][:8],
        }
    )
    for _ in range(rng.choice([0, 1, 1, 1, 2, 5])):
        rng.choice(MUTATIONS)(document, rng)
    damaged = damage_the_top(document, rng) if rng.random() < 0.03 else document
    text = json.dumps(damaged, ensure_ascii=rng.random() < 0.5)
    for name, spelled in SPELLED.items():
        text = text.replace(f'"{name}"', spelled)
    content = text.encode(errors="surrogatepass")
    return damage_bytes(content, rng) if rng.random() < 0.25 else content


# --- Damage to the structure -------------------------------------------------------------------


def replace_a_value(document: Document, rng: random.Random) -> None:
    entry = rng.choice(document[rng.choice(LISTS)] or [{}])
    if isinstance(entry, dict):
        entry[rng.choice([*entry, "id"])] = rng.choice(VALUES)


def remove_a_key(document: Document, rng: random.Random) -> None:
    entry = rng.choice(document[rng.choice(LISTS)] or [{}])
    if isinstance(entry, dict) and entry:
        del entry[rng.choice(list(entry))]


def replace_an_entry(document: Document, rng: random.Random) -> None:
    entries = document[rng.choice(LISTS)]
    if entries:
        entries[rng.randrange(len(entries))] = rng.choice(VALUES)


def repeat_an_entry(document: Document, rng: random.Random) -> None:
    entries = document[rng.choice(LISTS)]
    if entries:
        entries.insert(rng.randrange(len(entries)), copy.deepcopy(rng.choice(entries)))


def shuffle_a_list(document: Document, rng: random.Random) -> None:
    rng.shuffle(document[rng.choice(LISTS)])


def damage_the_top(document: Document, rng: random.Random) -> Any:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(VALUES)
    if kind == 1:
        return {**document, rng.choice(["info", "licenses", "é"]): rng.choice(VALUES)}
    if kind == 2:
        return {**document, rng.choice(LISTS): rng.choice(VALUES)}
    return {key: document[key] for key in rng.sample(LISTS, 2)}


def damage_an_image(document: Document, rng: random.Random) -> None:
    image = rng.choice(document["images"] or [{}])
    if not isinstance(image, dict):
        return
    if rng.random() < 0.5:
        image["file_name"] = rng.choice(TEXTS)
    elif rng.random() < 0.02:
        image["width"], image["height"] = rng.choice([(8192, 8192), (1 << 26, 1), (1, 1 << 26)])
    else:
        size = rng.choice([0, 1, 2, 5, -1, 479, 8193, 1 << 27, 1 << 40, 10**30, True, 640.0, "640"])
        image[rng.choice(["width", "height"])] = size


def damage_a_polygon(document: Document, rng: random.Random) -> None:
    annotation = rng.choice(document["annotations"] or [{}])
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if not isinstance(segmentation, list) or not segmentation:
        return
    polygon = rng.choice(segmentation)
    if not isinstance(polygon, list) or not polygon:
        return
    where = rng.randrange(len(polygon))
    kind = rng.randrange(8)
    if kind in (5, 6) and len(segmentation) > 1000:
        return  # the list repeats one polygon: a file of gigabytes
    if kind == 7:
        rng.choice([segmentation, polygon]).clear()
    elif kind == 0:
        polygon[where] = rng.choice(VALUES)
    elif kind == 1:
        polygon[where] = rng.choice([*NUMBERS, "<infinite>", 639.999, 640, 640.001, 480, 480.001])
    elif kind == 2:
        del polygon[where:]
    elif kind == 3:
        del polygon[where]
    elif kind == 4:
        repeats = rng.choice([2, 50, 2000])
        size = sum(len(part) for part in segmentation[:20] if isinstance(part, list | str))
        if size * repeats < 10_000_000:  # mutations add up
            segmentation[:] = segmentation[:20] * repeats
    elif kind == 5:
        polygon[:] = polygon[:2] * rng.choice([3, 3000])
    else:
        # Back and forth across the image: pycocotools allocates memory for every pixel.
        polygon[:] = [0, 0, 90, 60] * rng.choice([2, 1000, 20_000])


def damage_run_lengths(document: Document, rng: random.Random) -> None:
    annotation = rng.choice(document["annotations"] or [{}])
    images = {i.get("id"): i for i in document["images"] if isinstance(i, dict) and hashable(i)}
    if not isinstance(annotation, dict) or not hashable(annotation):
        return
    image = images.get(annotation.get("image_id"), {})
    width, height = image.get("width", 9), image.get("height", 9)
    if type(width) is not int or type(height) is not int:
        return
    pixels = width * height
    counts: Any = rng.choice(
        [
            [pixels],
            [0, pixels],
            [0, 0, 0, pixels],
            [1, 0, 0, 0, pixels - 1],
            [0] * 50_000 + [pixels],
            [1] * min(abs(pixels), 100_000),
            [pixels + 1, -1],
            [0, pixels + 2**32],
            [2**32, pixels],
            [2**63, -(2**63), pixels],
            [9 * 10**4299, 9 * 10**4299],
            [0.5, pixels],
            [True, pixels - 1],
            [pixels, "<infinite>"],
            [],
            "",
            compressed([pixels]),
            compressed([0, pixels]),
            compressed([pixels // 3, pixels - pixels // 3]),
            compressed([1, 2, 3, pixels - 6]),
            compressed([0, pixels + 2**32]),
            compressed([pixels + 2**35]),
            compressed([pixels])[:-1],
            compressed([pixels]) + "P" * 9,
            "o" * rng.choice([1, 6, 7, 13, 14, 100_000]),
            "0" * 100_000,
            "é" + compressed([pixels]),
            "\0" + compressed([pixels]),
            "".join(chr(rng.randrange(48, 112)) for _ in range(rng.randrange(40))),
            "".join(chr(rng.choice([0, 47, 48, 111, 112, 127, 255, 0x1F600])) for _ in range(9)),
        ]
    )
    sizes = [
        [width, height],
        [height],
        [height, width, 1],
        [0, 0],
        [-1, -1],
        [1 << 32, 1],
        "9",
        None,
    ]
    size = rng.choice(sizes) if rng.random() < 0.2 else [height, width]
    annotation["segmentation"] = {"size": size, "counts": counts}
    annotation["iscrowd"] = rng.choice([0, 1])


def hashable(entry: dict[str, Any]) -> bool:
    return not any(isinstance(entry.get(key), list | dict) for key in ("id", "image_id"))


def compressed(counts: list[int]) -> str:
    """Compress counts as COCO does: correct for up to three counts, wrong for more."""
    text = ""
    for count in counts:
        more = True
        while more:
            bits, count = count & 0x1F, count >> 5
            more = count not in (0, -1) or bool(bits & 0x10) != (count == -1)
            text += chr(48 + (bits | 0x20 * more))
    return text


MUTATIONS: list[Callable[[Document, random.Random], None]] = [
    replace_a_value,
    remove_a_key,
    replace_an_entry,
    repeat_an_entry,
    shuffle_a_list,
    damage_an_image,
    damage_a_polygon,
    damage_a_polygon,
    damage_run_lengths,
    damage_run_lengths,
]


# --- Damage to the bytes -----------------------------------------------------------------------


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice([1, 2, 10, 1000]))
    kind = rng.randrange(8)
    if kind == 0:
        return content[:start]
    if kind == 1:
        return content[:start] + content[end:]
    if kind == 2:
        return content[:start] + rng.randbytes(end - start) + content[end:]
    if kind == 3:
        return content[:start] + content[start:end] * 2 + content[end:]
    if kind == 4:
        invalid = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf", b"\0"]
        return content[:start] + rng.choice(invalid) + content[start:]
    if kind == 5:
        encoding = rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"])
        return content.decode(errors="replace").encode(encoding)
    if kind == 6:
        return content.decode(errors="replace").encode("latin-1", errors="replace")
    digit = str(rng.randrange(10)).encode()
    return content[:start] + content[start:end].replace(b"1", digit * 3) + content[end:]


# --- Running cases -----------------------------------------------------------------------------


def run_case(content: bytes, directory: Path, rng: random.Random) -> Counter[str]:
    """Process one file as the stages do, and check the results.

    Returns:
        The outcome, `used` or `refused`, and the number of rejections by reason.

    Raises:
        Exception: Any exception except a UserError of one line.
    """
    file, masks = directory / "instances.json", directory / "masks"
    file.write_bytes(content)
    try:
        read = read_instances(file)
        selection = select(
            read,
            CLASSES[: rng.randint(1, 5)],
            max_instances=rng.choice([1, 10, 10_000]),
            max_images=rng.choice([1, 2, 10]),
            prefer=rng.choice(["rare", "random", "first"]),
            seed=0,
            out_of_bounds=rng.choice(["drop", "clip"]),
            empty_fraction=rng.choice([0, 0.5, 1]),
        )
    except UserError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or len(message) > 3000:
            raise AssertionError(f"not an error of one line: {message[:200]!r}") from error
        message.encode()
        return Counter(["refused"])
    log_selection(selection, mostly_crowd(selection.instances))
    write_selection(directory / "selection.json", selection.instances)
    write_rejections(directory / "rejected.csv", selection.rejections, read.instances)
    json.dumps(selection.summary(), allow_nan=False).encode()
    with (directory / "rejected.csv").open(encoding="utf-8", newline="") as table:
        assert len(list(csv.reader(table))) == 1 + len(selection.rejections)
    again = read_instances(directory / "selection.json")
    assert not again.rejections
    assert again.instances.images == selection.instances.images
    assert len(again.instances.annotations) == len(selection.instances.annotations)
    masks.mkdir()
    overlap, crowd = (
        rng.choice(["last", "small", "ignore"]),
        rng.choice(["ignore", "paint", "drop"]),
    )
    write_masks(again.instances, masks, overlap=overlap, crowd=crowd, workers=1)
    for image in again.instances.images:
        with Image.open(masks / f"{image.stem}.png") as mask:
            assert mask.size == (image.width, image.height)
            labels = set(np.unique(np.asarray(mask)).tolist())
            assert labels <= {0, *range(1, 6), 255}
    assert len(list(masks.iterdir())) == len(again.instances.images)
    assert [path.name for path in directory.iterdir() if path.name.startswith(".")] == []
    shutil.rmtree(masks)
    return Counter(["used", *(rejection.reason for rejection in selection.rejections)])


def work(first: int, cases: int) -> None:
    """Run cases in this process with limited memory; print their numbers, then outcomes as JSON."""
    logging.disable()
    Image.MAX_IMAGE_PIXELS = None
    documents = base_documents()
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + MEMORY, address_space + MEMORY))
    outcomes: Counter[str] = Counter()
    for number in range(first, first + cases):
        print(number, flush=True)
        signal.alarm(SECONDS)
        with tempfile.TemporaryDirectory() as directory:
            outcomes += run_case(
                make_case(number, documents), Path(directory), random.Random(number)
            )
    signal.alarm(0)
    print(json.dumps(outcomes))


def run_cases(first: int, cases: int) -> Counter[str]:
    """Run cases in a worker process and count the outcomes.

    Raises:
        AssertionError: A case ended the worker; the message names the case.
    """
    command = [sys.executable, "-m", "tests.fuzz_annotations", "--worker"]
    command += ["--first", str(first), "--cases", str(cases)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    last = run.stdout.rstrip().rpartition("\n")[2]
    if run.returncode:
        raise AssertionError(f"case {last} ended the worker: {run.returncode}\n{run.stderr}")
    return Counter(json.loads(last))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.first, arguments.cases)
        return
    outcomes: Counter[str] = Counter()
    end = arguments.first + arguments.cases
    for first in range(arguments.first, end, BATCH):
        outcomes += run_cases(first, min(BATCH, end - first))
        done = min(first + BATCH, end) - arguments.first
        print(f"{done} cases: {outcomes['used']} used, {outcomes['refused']} refused", flush=True)
    for reason, count in sorted(outcomes.items()):
        print(f"{count:8} {reason}")


if __name__ == "__main__":
    main()
