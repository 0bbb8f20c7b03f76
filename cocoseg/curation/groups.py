"""Images that belong together and so into one split: of one video, place or person, or alike.

groups = group_images(selection.images, "video_id", Path("data/annotations/instances.json"))
groups = join_groups(groups, [("frame_1", "frame_2")])

A group has a key; `groups` gives it for each image, by the stem of its file name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cocoseg.coco.instances import ImageRecord, read_image_entries
from cocoseg.core.errors import UserError


def group_images(images: Sequence[ImageRecord], group_by: str, instances: Path) -> dict[str, str]:
    """The group of each image, as `group_by` says.

    `folder`: the part of the file name before its last `/` (or `+`, which stands for it in the name
    of a photo that was in a sub-folder). A text with a parenthesis: what the one group of this
    regular expression finds in the file name. Any other text: that field of the image's entry in
    the file `instances`. Raises UserError where that leaves out an image.
    """
    if group_by == "directory":
        return {
            image.stem: str(PurePosixPath(image.file_name.replace("+", "/")).parent)
            for image in images
        }
    if "(" in group_by:
        return {image.stem: _matched(group_by, image) for image in images}
    entries = read_image_entries(instances)
    groups = {}
    for image in images:
        entry = entries.get(image.id, {})
        if entry.get(group_by) is None:
            known = ", ".join(name for name, value in entry.items() if value is not None)
            raise UserError(
                f"split.group_by: the entry of {image.file_name} in {instances} has no "
                f"{group_by!r}, but: {known or 'nothing'}"
            )
        groups[image.stem] = str(entry[group_by])
    return groups


def _matched(pattern: str, image: ImageRecord) -> str:
    found = re.search(pattern, image.file_name)
    if found is None or found[1] is None:
        raise UserError(f"split.group_by: {pattern!r} finds no group in {image.file_name}")
    return found[1]


def join_groups(groups: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The groups after those of each pair of stems became one, of which the smallest key remains.

    A stem that has no group yet is one of its own, by its name.
    """
    pairs = list(pairs)
    joined = {stem: stem for pair in pairs for stem in pair} | dict(groups)
    keys = sorted(set(joined.values()))
    number = {key: place for place, key in enumerate(keys)}
    links = np.array([[number[joined[stem]] for stem in pair] for pair in pairs], np.int64).reshape(
        -1, 2
    )
    graph = coo_array((np.ones(len(links)), links.T), shape=(len(keys), len(keys)))
    _, component = connected_components(graph, directed=False)
    smallest: dict[int, str] = {}
    for key, place in zip(keys, component.tolist(), strict=True):
        smallest.setdefault(place, key)
    return {stem: smallest[component[number[key]]] for stem, key in joined.items()}
