"""A small mirror of COCO next to the project, which not every machine has."""

import json
import zipfile
from typing import Any

import pytest

from tests import ROOT

MIRROR = ROOT.parent / "shared" / "coco-mirror"
needs_mirror = pytest.mark.skipif(not MIRROR.is_dir(), reason="needs ../shared/coco-mirror")

MIRROR_SPLITS = ("train2017", "val2017")


def mirror_document(split: str) -> dict[str, Any]:
    """COCO's annotations of the images in one split of the mirror."""
    with zipfile.ZipFile(MIRROR / "annotations" / "annotations_trainval2017.zip") as archive:
        content: dict[str, Any] = json.loads(archive.read(f"annotations/instances_{split}.json"))
    return content
