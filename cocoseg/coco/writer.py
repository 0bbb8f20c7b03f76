"""Predictions as a COCO instances file, to go on with in a labelling tool or in `download.files`.

predictions = CocoWriter(("background", "cat"))
predictions.add("holiday/cat.jpg", labels)
predictions.write(Path("out.json"))
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
    """Label maps as annotations: one for each class that a photo shows, as compressed run lengths,
    since a label map does not tell objects of one class apart. `classes` has the background first.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = [
            {"id": label, "name": name} for label, name in enumerate(classes) if label > 0
        ]

    def add(self, file_name: str, labels: Labels) -> None:
        """Add the labels (H, W) of one photo."""
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
        document = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories,
        }
        write_text(path, json.dumps(document) + "\n")
