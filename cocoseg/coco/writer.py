"""Masks as a COCO instances file, for labeling tools and `download.files`.

predictions = CocoWriter(["background", "cat"])
predictions.add("holiday/cat.jpg", labels)
predictions.write(Path("predictions.json"))
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from cocoseg.core.files import write_text
from cocoseg.core.labels import Labels


class CocoWriter:
    """Collects masks and writes them as COCO annotations.

    An image gets one annotation per class, as a compressed run-length encoding: a mask does not
    distinguish objects of the same class.

    Args:
        classes: Names of the labels 0, 1, …; the background comes first and gets no category.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = [
            {"id": label, "name": name} for label, name in enumerate(classes) if label > 0
        ]

    def add(self, file_name: str, labels: Labels) -> None:
        """Add the mask of one image.

        Args:
            file_name: The name or path to write for the image; any text.
            labels: uint8 (H, W). Labels without a class, such as 255, are left out.
        """
        height, width = labels.shape
        image_id = len(self._images) + 1
        image = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        self._images.append(image)
        for category in self._categories:
            region = np.asfortranarray(labels == category["id"], dtype=np.uint8)
            if region.any():
                encoded = coco_mask.encode(region)
                segmentation = {**encoded, "counts": encoded["counts"].decode("ascii")}
                self._annotations.append(
                    {
                        "id": len(self._annotations) + 1,
                        "image_id": image_id,
                        "category_id": category["id"],
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
