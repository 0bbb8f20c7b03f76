"""COCO instances files of any size, made by repeating real annotations under new ids."""

import json
import zipfile
from pathlib import Path
from typing import Any

CLASSES = ["person", "bicycle", "car", "motorcycle", "airplane"]

_ARCHIVE = Path("../shared/coco-mirror/annotations/annotations_trainval2017.zip")


def original_document() -> tuple[str, dict[str, Any]]:
    """A name and a COCO document to repeat: COCO's own, or the sample's without the mirror."""
    if _ARCHIVE.is_file():
        with zipfile.ZipFile(_ARCHIVE) as archive:
            return "COCO train2017 (mirror)", json.loads(
                archive.read("annotations/instances_train2017.json")
            )
    # Imported late: it is slow, and not part of the measurement.
    from cocoseg.sources.synthetic.scenes import annotations_json

    return "the built-in sample", json.loads(annotations_json(200, 640, 480, seed=0))


def write_repeated(path: Path, document: dict[str, Any], images: int) -> None:
    """Write an instances file of `images` images entry by entry, since the file may be large."""
    of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        of_image.get(annotation["image_id"], []).append(annotation)
    sources = [document["images"][number % len(document["images"])] for number in range(images)]
    renamed = (
        {**source, "id": number, "file_name": f"{number:012d}.jpg"}
        for number, source in enumerate(sources, start=1)
    )
    repeated = (
        {**annotation, "image_id": number}
        for number, source in enumerate(sources, start=1)
        for annotation in of_image[source["id"]]
    )
    numbered = ({**annotation, "id": number} for number, annotation in enumerate(repeated, start=1))
    with path.open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        file.writelines(_separated(renamed))
        file.write('], "annotations": [')
        file.writelines(_separated(numbered))
        file.write('], "categories": ' + json.dumps(document["categories"]) + "}\n")


def _separated(entries: Any) -> Any:
    separator = ""
    for entry in entries:
        yield separator + json.dumps(entry)
        separator = ", "
