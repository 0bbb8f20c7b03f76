"""Groups of images that must share a split: images of one video, place or person, near-duplicates.

    groups = group_images(selection.images, "video_id", Path("data/annotations/instances.json"))
    groups = join_groups(groups, [("frame_1", "frame_2")])

`groups` maps the stem of each file name to the key of its group.
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
    """Group images by directory, file name, or a field of their entries.

    Args:
        images: images to group.
        group_by: `directory` groups by the part of the file name before the last `/` or `+`
            (`data/images` has `+` for `/`). A text with a parenthesis is a regular expression with
            one group, and the text that the group matches in the file name is the key. Any other
            text is a field of the image's entry.
        instances: COCO instances file with the entries. Read only to group by a field.

    Returns:
        The key of the group of each image, by stem.

    Raises:
        UserError: an image has no group: its name does not match, or its entry lacks the field.
    """
    if group_by == "directory":
        return {
            image.stem: str(PurePosixPath(image.file_name.replace("+", "/")).parent)
            for image in images
        }
    if "(" in group_by:
        return {image.stem: _matched_group(group_by, image) for image in images}
    entries = read_image_entries(instances)
    groups = {}
    for image in images:
        entry = entries.get(image.id, {})
        if entry.get(group_by) is None:
            known = ", ".join(name for name, value in entry.items() if value is not None)
            raise UserError(
                f"split.group_by: the entry of {image.file_name} in {instances} has no field "
                f"{group_by!r}; its fields are: {known or 'none'}"
            )
        groups[image.stem] = str(entry[group_by])
    return groups


def _matched_group(pattern: str, image: ImageRecord) -> str:
    found = re.search(pattern, image.file_name)
    if found is None or found[1] is None:
        raise UserError(f"split.group_by: {pattern!r} matches no group in {image.file_name}")
    return found[1]


def join_groups(groups: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join the groups of each pair of images.

    Args:
        groups: the key of the group of each image, by stem.
        pairs: stems of images that must share a group. A stem without a group starts as a group
            with the stem as its key.

    Returns:
        The key of the group of each image, pairs included. Joined groups get the smallest key.
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
