"""Masks as a COCO instances file, for labeling tools and `download.files`.

predictions = CocoWriter(["background", "cat"])
predictions.add("holiday/cat.jpg", labels)
predictions.write(Path("predictions.json"))
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from cocoseg.coco.contours import component_polygons
from cocoseg.core.files import write_text
from cocoseg.core.labels import Labels


class CocoWriter:
    """Collects masks and writes them as COCO annotations.

    A mask does not distinguish objects of the same class. So an image gets one annotation per class
    as a compressed run-length encoding, or one per connected component as a polygon.

    Args:
        classes: names of the labels 0, 1, …; the background comes first and gets no category.
        segmentation: the form of the segmentations. Labeling tools read polygons more often.
    """

    def __init__(
        self, classes: Sequence[str], segmentation: Literal["rle", "polygons"] = "rle"
    ) -> None:
        self._segmentation = segmentation
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: list[dict[str, Any]] = [
            {"id": label, "name": name} for label, name in enumerate(classes) if label > 0
        ]

    def add(self, file_name: str, labels: Labels) -> None:
        """Add the mask of one image.

        Args:
            file_name: the name or path to write for the image; any text.
            labels: uint8 (H, W). Labels without a class, such as 255, are left out.
        """
        height, width = labels.shape
        image_id = len(self._images) + 1
        image = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        self._images.append(image)
        for category in self._categories:
            region = labels == category["id"]
            if not region.any():
                continue
            if self._segmentation == "rle":
                encoded = coco_mask.encode(np.asfortranarray(region, dtype=np.uint8))
                segmentation = {**encoded, "counts": encoded["counts"].decode("ascii")}
                self._add_annotation(image_id, category["id"], segmentation, encoded)
                continue
            for polygon in component_polygons(region):
                (encoded,) = coco_mask.frPyObjects([polygon], height, width)
                self._add_annotation(image_id, category["id"], [polygon], encoded)

    def _add_annotation(
        self, image_id: int, category_id: int, segmentation: Any, encoded: dict[str, Any]
    ) -> None:
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": image_id,
                "category_id": category_id,
                "segmentation": segmentation,
                "area": int(coco_mask.area(encoded)),
                "bbox": coco_mask.toBbox(encoded).tolist(),
                "iscrowd": 0,
            }
        )

    def write(self, path: Path) -> None:
        """Write all images added so far, with their annotations and the categories."""
        document = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories,
        }
        write_text(path, json.dumps(document) + "\n")
