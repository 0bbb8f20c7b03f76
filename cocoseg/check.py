"""`cocoseg check`: what the pipeline would use of an export, before anything is copied.

export = check_export("annotations.json", "images")
print(export.as_text())
"""

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from cocoseg.coco.instances import Instances, ReadResult, read_instances
from cocoseg.coco.rejections import UNUSABLE_IMAGES, Reason, Rejection, invalid_annotations
from cocoseg.core.errors import UserError
from cocoseg.curation.selection import NothingSelected, Selection, select
from cocoseg.params.download import FilesExport, FilesParams
from cocoseg.sources.local_files import FilesSource

_CONNECTIONS = 16


@dataclass(frozen=True)
class ExportCheck:
    """An export as `download` and `filter` read it with the settings of presets/own_data.yaml.

    Attributes:
        source: all images and annotations.
        rejections: the entries that are not selected.
        selection: the selection; None if no image is left.
    """

    source: Instances
    rejections: Sequence[Rejection]
    selection: Selection | None

    def as_text(self) -> str:
        """Format what is found, kept and rejected, and a table of the classes."""
        images = [r for r in self.rejections if r.kind == "image"]
        unusable = [r for r in images if r.reason in UNUSABLE_IMAGES]
        kept = len(self.selection.instances.images) if self.selection else 0
        lines = [f"images: {kept + len(images):,}, {len(unusable):,} unusable, {kept:,} kept"]
        lines += self._reasons(images)
        annotations = len(self.selection.instances.annotations) if self.selection else 0
        invalid = invalid_annotations(self.rejections)
        lines.append(f"annotations: {annotations:,} kept, {len(invalid):,} rejected")
        lines += self._reasons(invalid)
        if self.selection:
            lines += _details(self.selection)
        return "\n".join(lines)

    def _reasons(self, rejections: Iterable[Rejection]) -> Iterator[str]:
        """A line for each reason with its remedy and the first example, most frequent first."""
        names: dict[int | None, str] = {image.id: image.file_name for image in self.source.images}
        first: dict[Reason, Rejection] = {}
        counts: Counter[Reason] = Counter()
        for r in rejections:
            counts[r.reason] += 1
            first.setdefault(r.reason, r)
        for reason, count in counts.most_common():
            example = first[reason]
            name = names.get(example.image_id, f"image {example.image_id}")
            detail = f" ({example.detail})" if example.detail not in ("", name) else ""
            yield f"  {count:,} {reason}: {reason.meaning} {reason.remedy}"
            yield f"    first: {name}{detail}"


def _details(selection: Selection) -> Iterator[str]:
    summary, instances = selection.summary(), selection.instances
    if summary["clipped"]["annotations"]:
        yield (
            f"annotations clipped to their image: {summary['clipped']['annotations']:,}, by up to "
            f"{summary['clipped']['largest']:g} pixels"
        )
    if summary["ignored"]["annotations"]:
        yield (
            "rejected annotations whose pixels are ignored, not background: "
            f"{summary['ignored']['annotations']:,} in {summary['ignored']['images']:,} of the "
            "kept images"
        )
    if crowds := sum(annotation.iscrowd for annotation in instances.annotations):
        yield f"crowd regions (iscrowd: 1): {crowds:,}, painted like objects (mask.crowd: paint)"
    if summary["images_empty"]:
        yield f"images without objects: {summary['images_empty']:,} kept"
    width = max(map(len, ["class", *summary["classes"]]))
    yield f"\n{'class':<{width}}  {'images':>10}  {'annotations':>11}"
    for name, counts in summary["classes"].items():
        yield f"{name:<{width}}  {counts['images']:>10,}  {counts['instances']:>11,}"


def check_export(
    annotations: str, images: str, classes: Sequence[str] | Literal["all"] = "all"
) -> ExportCheck:
    """Read an export and select from it. Images at URLs are not fetched; no file is kept.

    Args:
        annotations: the path or URL of the COCO file.
        images: the path or URL of the directory of the images.
        classes: the names of the classes, in the order of their labels.

    Raises:
        UserError: the export cannot be read, or a class does not exist.
    """
    read = _read(annotations, images)
    try:
        selection = select(
            read,
            classes,
            max_instances=1000,
            max_images=100_000,
            prefer="rare",
            seed=0,
            out_of_bounds="clip",
            empty_fraction=0.2,
        )
    except NothingSelected as error:
        return ExportCheck(read.instances, error.rejections, None)
    return ExportCheck(read.instances, selection.rejections, selection)


def next_step(annotations: str, images: str, classes: Sequence[str] | Literal["all"]) -> str:
    """Explain how to train on an export that `check_export` accepts."""
    directory = "data/own"
    if "://" not in annotations + images:
        paths = [Path(path).expanduser().absolute() for path in (annotations, images)]
        common = Path(os.path.commonpath([paths[0].parent, paths[1]]))
        annotations, images = (path.relative_to(common).as_posix() for path in paths)
        here = Path.cwd()
        directory = (common.relative_to(here) if common.is_relative_to(here) else common).as_posix()
    pair = f"{{annotations: {_yaml(annotations)}, images: {_yaml(images)}}}"
    files = f"{{directory: {_yaml(directory)}, pairs: [{pair}]}}"
    chosen = "" if classes == "all" else f", filter.classes: [{', '.join(map(_yaml, classes))}]"
    return (
        "next: run `cp presets/own_data.yaml params.yaml`, set in it "
        f"download.files: {files}{chosen}, and run `make repro`"
    )


def _yaml(text: str) -> str:
    """A YAML scalar, in quotes if necessary."""
    return text if re.fullmatch(r"[\w./~-]*[./~-][\w./~-]*|[A-Za-z]\w*", text) else json.dumps(text)


def _read(annotations: str, images: str) -> ReadResult:
    """Read an export as the stage `download` does."""
    try:
        pair = FilesExport(annotations=annotations, images=images)
    except ValidationError:
        raise UserError(
            f"expected paths or http://, https:// or file:/// URLs, got {annotations} and {images}"
        ) from None
    params = FilesParams(directory=".", pairs=[pair])
    # On Windows, the file stays open as long as its segmentations are not decoded.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary)
        workers = min(os.cpu_count() or 1, 16)
        source = FilesSource(params, _CONNECTIONS, workers, directory)
        try:
            source.write_annotations(directory / "instances.json")
        except UserError as error:
            raise UserError(str(error).replace("check download.files.pairs", "check it")) from None
        return read_instances(directory / "instances.json")
