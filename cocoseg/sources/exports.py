"""Merging of labeling tools' exports into the one COCO instances file that the pipeline reads.

    document = merge([read_export(path, "train"), read_export(other, "val")], locate)

Tools count ids from 0, use strings as ids, omit sizes, restart the ids in each file, list an image
twice, and vary the form of segmentations. In the merged file, ids are integers, categories of the
same name are one category, and file names are unique and contain no directory. Unusable entries are
kept with a reason, so that `filter` can report them.
"""

import gzip
import json
import logging
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from cocoseg.coco.instances import load_document
from cocoseg.coco.rejections import Defect, Reason
from cocoseg.core.errors import UserError
from cocoseg.core.files import flat_name, free_name

logger = logging.getLogger(__name__)


class MergedExports(TypedDict):
    """The content of a COCO instances file. Damaged entries may be any JSON value."""

    images: list[Any]
    annotations: list[Any]
    categories: list[dict[str, Any]]


class ExportAnnotation(msgspec.Struct, gc=False):
    """An entry of `annotations`. Fields may be any JSON value; the segmentation stays undecoded."""

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
    """The content of one annotation file. Damaged entries may be any JSON value.

    Attributes:
        images: objects in intact files.
        annotations: `ExportAnnotation` in intact files.
        categories: objects in intact files.
        split: the split of the images, if it is known.
        name: the name of the file in `data/rejected.csv`.
    """

    images: list[Any]
    annotations: list[Any]
    categories: list[Any]
    split: str | None
    name: str


@dataclass(frozen=True)
class ImageQuery:
    """An entry of `images`, whose file is to be found.

    Attributes:
        export: the index of the annotation file.
        file_name: as the entry states it.
        width: in pixels, or None if the entry does not state a valid size.
        height: in pixels, or None if the entry does not state a valid size.
    """

    export: int
    file_name: str
    width: int | None
    height: int | None


@dataclass(frozen=True)
class ImageMatch:
    """The image file that an entry refers to.

    Attributes:
        path: relative to the directory or URL of the images.
        source: the path or URL of the file.
        width: the size to which the annotations refer, in pixels.
        height: the size to which the annotations refer, in pixels.
        defect: why the image is unusable, if it is; then the other fields may be empty.
    """

    path: str
    source: str
    width: int
    height: int
    defect: Defect | None = None


_GZIP = b"\x1f\x8b"

Locate = Callable[[Sequence[ImageQuery]], Iterable[ImageMatch]]
"""Finds the image files: returns one match per query, in order."""


def read_export(path: Path, split: str | None, name: str | None = None) -> Export:
    """Read a COCO instances file, whose entries may be damaged.

    Args:
        path: the JSON file, which may be compressed by gzip.
        split: the split of its images, if it is known.
        name: `Export.name`; the name of the file if None.

    Raises:
        UserError: the file does not exist, is not JSON, or lacks one of the lists `images`,
            `annotations` and `categories`.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        others = ", ".join(map(str, sorted(path.parent.rglob("*.json"))[:3]))
        found = f" (found {others})" if others else ""
        raise UserError(f"{path} is not a file; check download.files.pairs{found}") from None
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} is damaged: {error}") from None
    name = name or path.name
    try:
        read = msgspec.json.decode(content, type=_Export)
        return Export(read.images, read.annotations, read.categories, split, name)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = load_document(path, content)
    annotations = [
        _known_fields(entry) if isinstance(entry, dict) else entry
        for entry in document["annotations"]
    ]
    return Export(document["images"], annotations, document["categories"], split, name)


def _known_fields(entry: dict[str, Any]) -> ExportAnnotation:
    known = {name: entry[name] for name in ExportAnnotation.__struct_fields__ if name in entry}
    text = json.dumps(entry.get("segmentation"))
    return ExportAnnotation(**{**known, "segmentation": msgspec.Raw(text.encode())})


def merge(exports: Sequence[Export], locate: Locate) -> MergedExports:
    """Merge exports into one document.

    Image and annotation ids are kept if all of them are unique integers; otherwise they are
    numbered from 1. The `file_name` of an image becomes the `flat_name` of its path, with a number
    if another image already has this name. Its other fields are kept. Entries with the same file,
    size and split become one image with the annotations of all.

    Args:
        exports: the annotation files, in the order of their entries in the result.
        locate: finds the image files.

    Raises:
        UserError: a category has no name, or two categories of one file have the same id.
    """
    images, image_ids = _merge_images(exports, locate)
    categories, category_ids = _merge_categories(exports)
    entries = [(k, entry) for k, export in enumerate(exports) for entry in export.annotations]
    ids = _unique_ids([_key(getattr(entry, "id", None)) for _, entry in entries], "annotation")
    no_image = min([1, *(image["id"] for image in images if isinstance(image, dict))]) - 1
    no_category = min([1, *(category["id"] for category in categories)]) - 1
    annotations = []
    for id, (k, entry) in zip(ids, entries, strict=True):
        if isinstance(entry, ExportAnnotation):
            image_id = image_ids.get((k, _key(entry.image_id)), no_image)
            category_id = category_ids.get((k, _key(entry.category_id)), no_category)
            annotations.append(_annotation(entry, id, image_id, category_id))
        else:
            annotations.append(_encodable(entry))
    return {"images": images, "annotations": annotations, "categories": categories}


# --- Images --------------------------------------------------------------------------------------


Key = int | str | None
"""An id in a form that compares equal however a tool writes it; None for an invalid id."""


def _merge_images(
    exports: Sequence[Export], locate: Locate
) -> tuple[list[Any], dict[tuple[int, Key], int]]:
    """The images of all exports, and their ids by the index of the export and the id in it."""
    entries = [(k, entry) for k, export in enumerate(exports) for entry in export.images]
    keys = [_key(entry.get("id")) if isinstance(entry, dict) else None for _, entry in entries]
    ids = _unique_ids(keys, "image")
    named = [
        index
        for index, (_, entry) in enumerate(entries)
        if isinstance(entry, dict) and _file_name(entry) is not None
    ]
    queries = [_query(*entries[index]) for index in named]
    matches = dict(zip(named, locate(queries), strict=True))
    first_of = _repeated_images(matches, [exports[k].split for k, _ in entries])
    once = [index for index in range(len(entries)) if index not in first_of]
    uses_of_source = Counter(m.source for i in once if (m := matches.get(i)) and not m.defect)
    uses_of_id = Counter((entries[index][0], keys[index]) for index in once)
    images: list[Any] = []
    taken: set[str] = set()
    for index in once:
        k, entry = entries[index]
        if not isinstance(entry, dict):
            images.append(_encodable(entry))
            continue
        image = {name: value for name, value in entry.items() if name not in _OUR_FIELDS}
        image = {_utf8(name): _encodable(value) for name, value in image.items()}
        image |= {"id": ids[index], "annotation_file": _utf8(exports[k].name)}
        if keys[index] not in (None, ids[index]):
            image["source_id"] = _encodable(keys[index])
        if index in matches:
            match, key = matches[index], keys[index]
            defect = match.defect
            if defect is None and (count := uses_of_id[k, key]) > 1:
                defect = Defect(Reason.DUPLICATE_IMAGE, f"{count} images have the id {key}")
            if defect is None and (count := uses_of_source[match.source]) > 1:
                detail = f"{count} images refer to {match.source}"
                defect = Defect(Reason.IMAGE_AMBIGUOUS, detail)
            image |= _image_fields(entry, match, defect, exports[k].split, taken)
        images.append(image)
    ids_by_key: dict[tuple[int, Key], int] = {
        (k, key): ids[first_of.get(index, index)]
        for index, ((k, _), key) in enumerate(zip(entries, keys, strict=True))
        if key is not None
    }
    return images, ids_by_key


_OUR_FIELDS = {
    *("id", "file_name", "width", "height", "source", "split", "rejected"),
    *("ignored", "annotation_file", "source_id"),
}


def _file_name(entry: dict[str, Any]) -> str | None:
    """The name of the image file. LVIS has a URL in its place."""
    names = [entry.get(field) for field in ("file_name", "coco_url")]
    return max((name for name in names if isinstance(name, str)), key=bool, default=None)


def _query(export: int, entry: dict[str, Any]) -> ImageQuery:
    width, height = _key(entry.get("width")), _key(entry.get("height"))
    name = _file_name(entry) or ""
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return ImageQuery(export, name, width, height)
    return ImageQuery(export, name, None, None)


def _repeated_images(
    matches: Mapping[int, ImageMatch], splits: Sequence[str | None]
) -> dict[int, int]:
    """Each later entry of the same file, size and split, and the first such entry, by index.

    Entries that differ in size or split are not joined.
    """
    by_source: dict[str, list[int]] = defaultdict(list)
    for index, match in matches.items():
        if not match.defect:
            by_source[match.source].append(index)
    joined: dict[int, int] = {}
    for indices in by_source.values():
        if len({(matches[i].width, matches[i].height, splits[i]) for i in indices}) == 1:
            joined |= dict.fromkeys(indices[1:], indices[0])
    if joined:
        logger.info("%d images are listed again; their annotations are joined", len(joined))
    return joined


def _image_fields(
    entry: dict[str, Any],
    match: ImageMatch,
    defect: Defect | None,
    split: str | None,
    taken: set[str],
) -> dict[str, Any]:
    fields: dict[str, Any] = {"width": match.width, "height": match.height}
    if defect:
        rejected = Defect(defect.reason, _utf8(defect.detail))
        return {**fields, "file_name": _utf8(_file_name(entry) or ""), "rejected": rejected}
    fields |= {"file_name": _unique_name(match.path, taken), "source": _utf8(match.source)}
    return {**fields, "split": split} if split else fields


def _unique_name(path: str, taken: set[str]) -> str:
    """A file name whose stem no other image has, apart from case, because masks are named by it."""
    stem, dot, extension = flat_name(path).rpartition(".")
    if not dot:
        stem, extension = extension, ""
    return f"{free_name(stem, taken)}{dot}{extension}"


# --- Annotations and categories ------------------------------------------------------------------


_EMPTY = re.compile(rb"null|\[\s*(\[\s*\]\s*,?\s*)*\]")
_LIST = re.compile(rb"\[\s*([-\d{])")


def _annotation(
    entry: ExportAnnotation, id: int, image_id: int, category_id: int
) -> dict[str, Any]:
    """The entry of the merged file."""
    annotation = {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": _segmentation(entry.segmentation),
        "iscrowd": _iscrowd(entry.iscrowd),
    }
    if entry.bbox is not None:
        annotation["bbox"] = _encodable(entry.bbox)
    key = _key(entry.id)
    if key not in (None, id):
        annotation["source_id"] = _encodable(key)
    if entry.bbox and _EMPTY.fullmatch(memoryview(entry.segmentation)):
        annotation["rejected"] = Defect(Reason.BBOX_ONLY)
    return annotation


def _segmentation(raw: msgspec.Raw) -> msgspec.Raw:
    """The segmentation as COCO writes it.

    VGG Image Annotator writes the one polygon as a flat list; other tools put a run-length encoding
    into a list.
    """
    start = _LIST.match(memoryview(raw))
    if not start:
        return raw
    if start[1] != b"{":
        return msgspec.Raw(b"[" + bytes(raw) + b"]")
    try:
        encodings = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.DecodeError:  # NaN
        return raw
    return encodings[0] if len(encodings) == 1 else raw


_NO, _YES = ("", "0", "0.0", "false", "no"), ("1", "1.0", "true", "yes")
_CROWD_TEXTS = {**dict.fromkeys(_NO, 0), **dict.fromkeys(_YES, 1)}


def _iscrowd(value: Any) -> Any:
    """0 or 1, in whatever form a tool writes it. `filter` rejects an entry with another value."""
    if value is None:
        return 0
    if isinstance(value, str):
        value = _CROWD_TEXTS.get(value.strip().lower(), value)
    if isinstance(value, bool | float) and value in (0, 1):
        return int(value)
    return _encodable(value)


def _merge_categories(
    exports: Sequence[Export],
) -> tuple[list[dict[str, Any]], dict[tuple[int, Key], int]]:
    """One category per name, and its id by the index of the export and the id in it."""
    id_of: dict[str, int] = {}
    supercategories: dict[str, str] = {}
    ids: dict[tuple[int, Key], int] = {}
    for k, export in enumerate(exports):
        for entry in export.categories:
            name = entry.get("name") if isinstance(entry, dict) else None
            if isinstance(name, int):
                name = str(name)
            name = " ".join(_utf8(name).split()) if isinstance(name, str) else ""
            if not name:
                raise UserError(
                    f"download.files.pairs: annotation file {k + 1} has a category without a name: "
                    f"{ascii(entry)[:100]}"
                )
            key = _key(entry.get("id"))
            if isinstance(supercategory := entry.get("supercategory"), str) and supercategory:
                supercategories.setdefault(name, _utf8(supercategory))
            if name not in id_of:
                taken = id_of.values()
                next_id = max(taken, default=0) + 1
                id_of[name] = key if isinstance(key, int) and key not in taken else next_id
            if key is not None and ids.setdefault((k, key), id_of[name]) != id_of[name]:
                raise UserError(
                    f"download.files.pairs: annotation file {k + 1} has two categories with the id "
                    f"{key!a} (the second is {name!a}); give each a unique id"
                )
    categories = [
        {"id": id, "name": name, "supercategory": supercategories.get(name, "")}
        for name, id in id_of.items()
    ]
    return categories, ids


# --- Arbitrary values ----------------------------------------------------------------------------


def _key(id: Any) -> Key:
    """Normalize an id: 7, 7.0 and "7" are equal, and invalid ids are None."""
    if isinstance(id, float) and id.is_integer():
        id = int(id)
    if isinstance(id, str) and id.isascii() and id.isdecimal() and str(int(id[:20])) == id:
        id = int(id)
    if isinstance(id, int) and not isinstance(id, bool):
        return id if abs(id) < 1 << 62 else str(id)
    return id if isinstance(id, str) else None


def _unique_ids(keys: Sequence[Key], kind: str) -> list[int]:
    """The keys if they are unique integers, else 1, 2, …"""
    integers = [key for key in keys if isinstance(key, int)]
    if len(set(integers)) == len(keys):
        return integers
    logger.info("%s ids are not unique integers; renumbered from 1", kind)
    return list(range(1, len(keys) + 1))


def _utf8(text: str) -> str:
    """The text with each unpaired surrogate, which UTF-8 cannot encode, replaced by `?`."""
    return text.encode(errors="replace").decode()


def _encodable(value: Any) -> Any:
    """The value, or None if JSON cannot encode it, such as a number of more than 64 bits."""
    try:
        msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError, RecursionError, TypeError, ValueError):
        return None
    return value
