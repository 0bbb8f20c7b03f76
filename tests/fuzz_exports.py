"""Damaged and hostile exports: names, sizes, orientations, ids, subdirectories.

    python -m tests.fuzz_exports --cases 10000            # a long run; --first N continues one

Case N is always the same. Each case runs from annotations to images and masks. It must be used or
refused in one line, copy no file from outside the image directory, and write none outside its own
directory.
"""

import argparse
import contextlib
import copy
import io
import json
import logging
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.coco.rejections import write_rejections
from cocoseg.core.errors import UserError
from cocoseg.core.images import read_rgb
from cocoseg.curation.selection import select, write_selection
from cocoseg.params.download import FilesExport, FilesParams
from cocoseg.sources.local_files import FilesSource
from cocoseg.sources.source import update_images
from tests.fuzz_annotations import (
    MUTATIONS,
    SPELLED,
    TEXTS,
    VALUES,
    Document,
    damage_bytes,
    damage_the_top,
)

SIZE = (20, 12)
SHAPE = [[2.0, 2.0, 12.0, 2.0, 12.0, 10.0, 2.0, 10.0]]
IMAGES = [
    "a.png",
    "sub/a.png",
    "sub/b.jpg",
    "sub/er/a.PNG",
    "deep/er/c.webp",
    "A.png",
    "\u00fcn\u00ef.tif",
    "e\u0301.bmp",
    "x y+%41&#.png",
    ".hidden.png",
    "back\\slash.png",
    "question?.png",
    "new\nline.png",
    "1a2b3c4d-upload.png",
    "no extension",
    "\u5199\u771f/\u725b.png",
]
NAMES = [*IMAGES, *TEXTS, "", "b.jpg", "c.webp", "upload.png", "e\u0301.bmp", "\u00e9.bmp"]
NAMES += [
    "turned.jpg",
    "upside.jpg",
    "square.jpg",
    "broken.png",
    "text.png",
    "link.png",
    "loop.png",
]
NAMES += ["../secret.png", "../../secret.png", "..\\..\\secret.png", "sub/../../../secret.png"]
NAMES += [
    "%2e%2e%2fsecret.png",
    "linked/far.png",
    "far.png",
    "linked/back/a.png",
    "SECRET",
    "file://SECRET",
    "C:\\secret.png",
]
NAMES += [
    "/data/local-files/?d=sub%2Fb.jpg",
    "images\\a.png",
    "/mnt/x/sub/b.jpg",
    "http://[x/a.png",
]
NAMES += ["https://host/bucket/sub/b.jpg?X-Sign=1", "images/0a0b0c0d-a.png", "./sub//a.png", "sub"]


def make_room(room: Path) -> None:
    """Draw the images in `own/images`, and a secret one next to it."""
    images = room / "own/images"
    noise = random.Random(0)
    for name in IMAGES:
        path = images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.frombytes("RGB", SIZE, noise.randbytes(SIZE[0] * SIZE[1] * 3))
        kinds = {".jpg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".bmp": "BMP"}
        image.save(path, kinds.get(path.suffix, "PNG"))
    for name, orientation, size in (
        ("turned.jpg", 6, SIZE),
        ("upside.jpg", 3, SIZE),
        ("square.jpg", 8, (16, 16)),
        ("odd.jpg", 99, SIZE),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", size, (9, 9, 9)).save(images / name, exif=exif)
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:-40])
    (images / "text.png").write_text("not an image")
    Image.new("RGB", SIZE, (1, 2, 3)).save(room / "secret.png")
    Image.new("RGB", SIZE, (4, 5, 6)).save(room / "cached.png")
    (images / "link.png").symlink_to(room / "cached.png")  # as DVC links tracked files
    (images / "loop.png").symlink_to("loop.png")
    (room / "shared").mkdir()
    Image.new("RGB", SIZE, (7, 8, 9)).save(room / "shared/far.png")
    (room / "shared/back").symlink_to(images)
    (images / "linked").symlink_to(room / "shared")
    (images / "gone.png").symlink_to("nowhere.png")


def make_case(number: int, room: Path) -> list[bytes]:
    """Create the annotation files of case `number`."""
    rng = random.Random(number)
    return [_make_file(rng, room) for _ in range(rng.choice([1, 1, 1, 2]))]


def _make_file(rng: random.Random, room: Path) -> bytes:
    images: list[Any] = []
    annotations: list[Any] = []
    for id in range(rng.randint(1, 5)):
        name = rng.choice(NAMES if rng.random() < 0.4 else IMAGES)
        image = {"id": id, "file_name": name.replace("SECRET", f"{room}/secret.png")}
        if rng.random() < 0.7:
            image |= dict(zip(("width", "height"), _size(rng), strict=True))
        images.append(image)
        for _ in range(rng.choice([0, 1, 1, 2])):
            annotation = {"id": len(annotations), "image_id": id, "category_id": rng.randint(0, 2)}
            shape = rng.choice([*[SHAPE] * 8, [], None, {"size": [12, 20], "counts": [240]}])
            annotations.append(
                {**annotation, "segmentation": copy.deepcopy(shape), "bbox": [2, 2, 10, 8]}
            )
    document: Document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": _class_name(rng, k)} for k in range(3)],
    }
    for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
        rng.choice([*MUTATIONS, _change_ids])(document, rng)
    damaged = damage_the_top(document, rng) if rng.random() < 0.03 else document
    text = json.dumps(damaged, ensure_ascii=rng.random() < 0.5)
    for name, spelled in SPELLED.items():
        text = text.replace(f'"{name}"', spelled)
    content = text.encode(errors="surrogatepass")
    return damage_bytes(content, rng) if rng.random() < 0.1 else content


def _class_name(rng: random.Random, id: int) -> Any:
    return rng.choice(["cat", "c/t", 7, *TEXTS]) if rng.random() < 0.05 else f"class {id}"


def _size(rng: random.Random) -> tuple[Any, Any]:
    sizes: list[tuple[Any, Any]] = [(20, 12)] * 16
    sizes += [(12, 20), (0, 0), (20, 0), ("20", "12"), (20.0, 12.0), (16, 16), (-20, 12), (21, 12)]
    sizes += [(rng.choice(VALUES), 12), (1 << 40, 1 << 40)]
    return rng.choice(sizes)


def _change_ids(document: Document, rng: random.Random) -> None:
    """Make all ids of one kind strings, equal, or floats."""
    key, lists = rng.choice([("image_id", "images"), ("category_id", "categories")])
    change = rng.choice([str, lambda id: f"x{id}", lambda id: 1, lambda id: float(id)])
    with contextlib.suppress(LookupError, TypeError, ValueError, OverflowError):
        for entry in document[lists]:
            entry["id"] = change(entry["id"])
        for entry in document["annotations"]:
            entry[key] = change(entry[key])


def run_case(number: int, room: Path) -> Counter[str]:
    """Run one case.

    Returns:
        Counts of the outcome, "used" or "refused", and of each reason for rejection.

    Raises:
        Exception: the case fails, with any exception except UserError.
    """
    rng = random.Random(number)
    case = room / "case"
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    pairs = []
    for place, content in enumerate(make_case(number, room)):
        (case / f"{place}.json").write_bytes(content)
        base = rng.choice([str(room / "own/images"), "images", "images", (room / "own").as_uri()])
        pairs.append(FilesExport(annotations=f"{case}/{place}.json", images=base))
    params = FilesParams(directory=str(room / "own"), pairs=pairs)
    source = FilesSource(params, connections=2, workers=0, downloads=case / "downloads")
    try:
        source.write_annotations(case / "instances.json")
        read = read_instances(case / "instances.json")
        selection = select(
            read,
            "all",
            max_instances=10,
            max_images=10,
            prefer=rng.choice(["rare", "random", "first"]),
            seed=0,
            out_of_bounds=rng.choice(["drop", "clip"]),
            empty_fraction=rng.choice([0, 0.5, 1]),
        )
    except UserError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or len(message) > 3000:
            raise AssertionError(f"not a line for a user: {message[:200]!r}") from error
        return Counter(["refused"])
    write_selection(case / "selection.json", selection.instances)
    write_rejections(case / "rejected.csv", selection.rejections, read.instances)
    kept = read_instances(case / "selection.json").instances
    assert kept.images == selection.instances.images
    update_images(source, kept.images, case / "images")
    (case / "masks").mkdir()
    write_masks(kept, case / "masks", overlap="last", crowd="ignore", workers=0)
    originals = {path.read_bytes() for path in _image_files(room)}
    for image in kept.images:
        copied = case / "images" / image.file_name
        assert copied.is_file() and not copied.is_symlink()
        assert copied.read_bytes() in originals
        assert read_rgb(copied, image.width, image.height).shape[:2] == (image.height, image.width)
    assert len(kept.images) == len([*(case / "images").iterdir()])
    assert len(kept.images) == len([*(case / "masks").iterdir()])
    return Counter(["used", *(rejection.reason for rejection in selection.rejections)])


def _image_files(room: Path) -> list[Path]:
    directories = room / "own/images", room / "shared"
    return [path for own in directories for path in own.rglob("*") if path.is_file()]


def run_cases(first: int, cases: int) -> Counter[str]:
    """Run `cases` cases from number `first`; AssertionError names the case that fails."""
    outcomes: Counter[str] = Counter()
    before = logging.root.manager.disable
    logging.disable()
    try:
        with tempfile.TemporaryDirectory() as directory:
            room = Path(directory)
            make_room(room)
            everything = _listing(room)
            for number in range(first, first + cases):
                try:
                    with contextlib.redirect_stderr(io.StringIO()):
                        outcomes += run_case(number, room)
                except Exception as error:
                    raise AssertionError(f"case {number}: {error!r}") from error
                assert _listing(room) == everything, number
    finally:
        logging.disable(before)
    return outcomes


def _listing(room: Path) -> list[str]:
    """Every file except those of the case."""
    paths = (path.relative_to(room) for path in room.rglob("*"))
    return sorted(str(path) for path in paths if path.parts[0] != "case")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=2000)
    arguments = parser.parse_args()
    for reason, count in sorted(run_cases(arguments.first, arguments.cases).items()):
        print(f"{count:8} {reason}")


if __name__ == "__main__":
    main()
