"""What labelling tools export, as the one COCO instances file that the pipeline reads.

    document = merge([read_export(path, "train"), read_export(other, "val")], locate)

Tools number from 0, or by texts, leave sizes out, and start anew in each file. Here ids become
whole numbers, categories of one name become one, and names become plain and different. What cannot
be used stays in the file with its reason, so that `filter` can say so.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cocoseg.coco.instances import load_document
from cocoseg.coco.rejections import Defect, Reason
from cocoseg.core.errors import UserError
from cocoseg.core.files import flat_name, free_name

logger = logging.getLogger(__name__)

Document = dict[str, list[Any]]
"""A COCO instances file: lists of images, annotations and categories."""


class ExportAnnotation(msgspec.Struct, gc=False):
    """An entry of `annotations`, of any content. The segmentation stays undecoded."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    bbox: Any = None
    iscrowd: Any = 0


class _Export(msgspec.Struct):
    images: list[dict[str, Any]]
    annotations: list[ExportAnnotation]
    categories: list[dict[str, Any]]


@dataclass
class Export:
    """One annotation file. Entries are objects, or any JSON where someone has damaged it; `split`
    is what its images are for, if that is known."""

    images: list[Any]
    annotations: list[Any]
    categories: list[Any]
    split: str | None


@dataclass(frozen=True)
class Wanted:
    """What an annotation file says of a photo: sizes in pixels, None where it does not say them."""

    export: int
    file_name: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class Found:
    """The photo that is meant: its path below its folder, its address, the size in pixels that its
    annotations are about; and why it cannot be used, if it cannot."""

    path: str
    source: str
    width: int
    height: int
    defect: Defect | None = None


def read_export(path: Path, split: str | None) -> Export:
    """Read a COCO instances file of any content. Raises UserError when it is none at all."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        others = ", ".join(map(str, sorted(path.parent.rglob("*.json"))[:3]))
        there = f"; there is {others}" if others else ""
        raise UserError(f"{path} is no file: see download.files.pairs{there}") from None
    try:
        read = msgspec.json.decode(content, type=_Export)
        return Export(read.images, read.annotations, read.categories, split)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = load_document(path, content.removeprefix(b"\xef\xbb\xbf"))
    annotations = [
        _known_fields(entry) if isinstance(entry, dict) else entry
        for entry in document["annotations"]
    ]
    return Export(document["images"], annotations, document["categories"], split)


def _known_fields(entry: dict[str, Any]) -> ExportAnnotation:
    known = {name: entry[name] for name in ExportAnnotation.__struct_fields__ if name in entry}
    text = json.dumps(entry.get("segmentation"))
    return ExportAnnotation(**{**known, "segmentation": msgspec.Raw(text.encode())})


def merge(
    exports: Sequence[Export], locate: Callable[[Sequence[Wanted]], Iterable[Found]]
) -> Document:
    """All exports as one; `locate` finds the photos, and answers in order.

    Image and annotation ids are kept where all are different whole numbers, else numbered from 1.
    An image gets the path of its photo as `file_name`, by `flat_name`, and a number behind it where
    another has this name already; its other fields are kept. Raises UserError where a category has
    no name, or another's id.
    """
    images, numbers = _merge_images(exports, locate)
    categories, category_ids = _merge_categories(exports)
    entries = [(k, entry) for k, export in enumerate(exports) for entry in export.annotations]
    ids = _numbering([_key(getattr(entry, "id", None)) for _, entry in entries], "annotation")
    nowhere = min([1, *(image["id"] for image in images if isinstance(image, dict))]) - 1
    annotations = []
    for id, (k, entry) in zip(ids, entries, strict=True):
        if isinstance(entry, ExportAnnotation):
            key = _key(entry.image_id)
            image_id = numbers.get((k, key), nowhere)
            category_id = category_ids.get((k, _key(entry.category_id)))
            annotations.append(_annotation(entry, id, image_id, category_id))
        else:
            annotations.append(_encodable(entry))
    return {"images": images, "annotations": annotations, "categories": categories}


# --- Images --------------------------------------------------------------------------------------


def _merge_images(
    exports: Sequence[Export], locate: Callable[[Sequence[Wanted]], Iterable[Found]]
) -> tuple[list[Any], dict[tuple[int, Any], int]]:
    """The images of all exports, and the id of each by its export and its id in there."""
    entries = [(k, entry) for k, export in enumerate(exports) for entry in export.images]
    keys = [_key(entry.get("id")) if isinstance(entry, dict) else None for _, entry in entries]
    ids = _numbering(keys, "image")
    readable = [
        place
        for place, (_, entry) in enumerate(entries)
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str)
    ]
    wanted = [_wanted(*entries[place]) for place in readable]
    found = dict(zip(readable, locate(wanted), strict=True))
    times_used = Counter(photo.source for photo in found.values() if not photo.defect)
    times_numbered = Counter((k, key) for (k, _), key in zip(entries, keys, strict=True))
    images: list[Any] = []
    taken: set[str] = set()
    for place, (k, entry) in enumerate(entries):
        if not isinstance(entry, dict):
            images.append(_encodable(entry))
            continue
        image = {name: value for name, value in entry.items() if name not in _OURS}
        image = {_text(name): _encodable(value) for name, value in image.items()}
        image["id"] = ids[place]
        if place in found:
            photo = found[place]
            same_id, same_photo = times_numbered[k, keys[place]], times_used[photo.source]
            defect = photo.defect
            if defect is None and same_id > 1:
                defect = Defect(
                    Reason.DUPLICATE_IMAGE, f"{same_id} images have the id {keys[place]}"
                )
            if defect is None and same_photo > 1:
                defect = Defect(
                    Reason.IMAGE_AMBIGUOUS, f"{photo.source} is the photo of {same_photo} images"
                )
            image |= _image_fields(entry, photo, defect, exports[k].split, taken)
        images.append(image)
    numbers = {
        (k, key): id for (k, _), key, id in zip(entries, keys, ids, strict=True) if key is not None
    }
    return images, numbers


_OURS = {"id", "file_name", "width", "height", "source", "split", "rejected"}


def _wanted(export: int, entry: dict[str, Any]) -> Wanted:
    width, height = _key(entry.get("width")), _key(entry.get("height"))
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return Wanted(export, entry["file_name"], width, height)
    return Wanted(export, entry["file_name"], None, None)


def _image_fields(
    entry: dict[str, Any], photo: Found, defect: Defect | None, split: str | None, taken: set[str]
) -> dict[str, Any]:
    fields: dict[str, Any] = {"width": photo.width, "height": photo.height}
    if defect:
        reason, detail = defect
        return {
            **fields,
            "file_name": _text(entry["file_name"]),
            "rejected": (reason, _text(detail)),
        }
    fields |= {"file_name": _free_name(photo.path, taken), "source": _text(photo.source)}
    return {**fields, "split": split} if split else fields


def _free_name(path: str, taken: set[str]) -> str:
    """A file name for a photo whose stem no other has: masks are named by the stem, on file systems
    that may not tell upper from lower case."""
    stem, dot, extension = flat_name(path).rpartition(".")
    if not dot:
        stem, extension = extension, ""
    return f"{free_name(stem, taken)}{dot}{extension}"


# --- Annotations and categories ------------------------------------------------------------------


_NOTHING = (b"null", b"[]", b"[[]]")


def _annotation(
    entry: ExportAnnotation, id: int, image_id: int, category_id: int | None
) -> dict[str, Any]:
    """The entry for the one file; without a category it has none, which `filter` will reject."""
    annotation = {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": entry.segmentation,
        "iscrowd": _encodable(entry.iscrowd or 0),
    }
    if isinstance(entry.iscrowd, bool):
        annotation["iscrowd"] = int(entry.iscrowd)
    is_short = memoryview(entry.segmentation).nbytes < 16
    if is_short and entry.bbox and b"".join(bytes(entry.segmentation).split()) in _NOTHING:
        annotation["rejected"] = Defect(Reason.BBOX_ONLY)
    return annotation


def _merge_categories(
    exports: Sequence[Export],
) -> tuple[list[dict[str, Any]], dict[tuple[int, Any], int]]:
    """One category for each name, and its id by an export and the id in there."""
    id_of: dict[str, int] = {}
    ids: dict[tuple[int, Any], int] = {}
    for k, export in enumerate(exports):
        for entry in export.categories:
            name = entry.get("name") if isinstance(entry, dict) else None
            if isinstance(name, int):
                name = str(name)
            name = " ".join(_text(name).split()) if isinstance(name, str) else ""
            if not name:
                raise UserError(
                    f"download.files.pairs: annotation file {k + 1} has a category without a name: "
                    f"{ascii(entry)[:100]}"
                )
            key = _key(entry.get("id"))
            if name not in id_of:
                taken = id_of.values()
                next_id = max(taken, default=0) + 1
                id_of[name] = key if isinstance(key, int) and key not in taken else next_id
            if key is not None and ids.setdefault((k, key), id_of[name]) != id_of[name]:
                raise UserError(
                    f"download.files.pairs: annotation file {k + 1} has two categories of the id "
                    f"{key!a}, {name!a} is the second; give each its own"
                )
    return [{"id": id, "name": name} for name, id in id_of.items()], ids


# --- Values of any content -----------------------------------------------------------------------


def _key(id: Any) -> int | str | None:
    """What an id is compared by: 7, 7.0 and "7" are the same, whatever is no id is None."""
    if isinstance(id, float) and id.is_integer():
        id = int(id)
    if isinstance(id, str) and id.isascii() and id.isdecimal() and str(int(id[:20])) == id:
        id = int(id)
    if isinstance(id, int) and not isinstance(id, bool):
        return id if abs(id) < 1 << 62 else str(id)
    return id if isinstance(id, str) else None


def _numbering(keys: Sequence[int | str | None], kind: str) -> list[int]:
    """The keys where they are different whole numbers, else 1, 2, …"""
    numbers = [key for key in keys if isinstance(key, int)]
    if len(set(numbers)) == len(keys):
        return numbers
    logger.info("%s ids are no different whole numbers: numbered from 1", kind)
    return list(range(1, len(keys) + 1))


def _text(text: str) -> str:
    """The text with a question mark for each half of a surrogate pair, which UTF-8 cannot spell."""
    return text.encode(errors="replace").decode()


def _encodable(value: Any) -> Any:
    """The value, or None where it cannot be written as JSON: a number beyond 64 bits, say."""
    try:
        msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError, RecursionError, TypeError, ValueError):
        return None
    return value
