"""Section `download`: where annotations and images come from."""

from typing import Annotated, Literal

from pydantic import Field

from cocoseg.params.reader import NonNegativeInt, PositiveInt, Section, matching

Url = Annotated[
    str,
    matching(r"https?://[^/\s].*|file:///.*", "an http://, https:// or file:/// URL"),
]
Location = Annotated[
    str,
    matching(
        r"https?://[^/\s].*|file:///.*|(?!\w+://).+",
        "a path or an http://, https:// or file:/// URL",
    ),
]
Md5 = Annotated[str, matching("[0-9a-f]{32}", "32 lowercase hexadecimal digits or null")]


class SampleParams(Section):
    images: PositiveInt
    width: Annotated[int, Field(ge=64, le=1024)]
    height: Annotated[int, Field(ge=48, le=1024)]
    seed: NonNegativeInt


class CocoParams(Section):
    base_url: Url
    split: Literal["train2014", "val2014", "train2017", "val2017"]
    md5: Md5 | None


class FilesExport(Section):
    """An annotation file, the directory of its images, and their split."""

    annotations: Location
    images: Location
    split: Literal["train", "val", "test"] | None = None


class FilesParams(Section):
    directory: Annotated[str, Field(min_length=1)]
    pairs: Annotated[list[FilesExport], Field(min_length=1)]


class DownloadParams(Section):
    source: Literal["sample", "coco", "files"]
    sample: SampleParams
    coco: CocoParams
    files: FilesParams
