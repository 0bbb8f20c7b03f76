"""The classes of `filter.classes`: which categories of an annotation file belong to each."""

from collections.abc import Mapping, Sequence
from typing import Literal

from cocoseg.coco.instances import Instances
from cocoseg.core.errors import UserError
from cocoseg.core.files import MAX_NAME_BYTES, flat_name
from cocoseg.core.labels import IGNORE_INDEX

ClassSpec = str | Mapping[str, Sequence[str] | Mapping[str, str]]
"""A category's name; `{class: [categories]}`; or `{class: {"supercategory": name}}`."""

_RESERVED = {"background": "label 0", "ignored": f"label {IGNORE_INDEX}"}


def categories_of_classes(
    instances: Instances, classes: Sequence[ClassSpec] | Literal["all"]
) -> dict[str, set[int]]:
    """The ids of the categories that make up each class, classes in label order.

    Args:
        instances: the annotations.
        classes: as in `filter.classes`; `all` makes a class of each category that has annotations.

    Raises:
        UserError: a category does not exist or belongs to two classes, or a class name cannot be
            used.
    """
    names = _names_of_classes(instances, _used_names(instances) if classes == "all" else classes)
    if len(names) >= IGNORE_INDEX:
        raise UserError(
            f"filter.classes: {len(names)} classes, expected at most {IGNORE_INDEX - 1}"
        )
    found: dict[str, set[int]] = {}
    name_of: dict[int, str] = {}
    selected = {member for members in names.values() for member in members}
    for name, members in names.items():
        _check_class_name(name)
        found[name] = {c.id for c in instances.categories if c.name in members}
    for category in instances.categories:
        other = name_of.setdefault(category.id, category.name)
        if other != category.name and not {other, category.name}.isdisjoint(selected):
            raise UserError(
                f"filter.classes: {other!r} and {category.name!r} have the same id, "
                f"{category.id}, in the annotations; give each its own"
            )
    return found


def labels_of_categories(
    instances: Instances, classes: Sequence[ClassSpec] | Literal["all"]
) -> dict[int, int]:
    """The label of each category of a selected class, by category id.

    Arguments and errors are those of `categories_of_classes`.
    """
    members = categories_of_classes(instances, classes)
    return {id: label for label, ids in enumerate(members.values(), start=1) for id in ids}


def _names_of_classes(instances: Instances, classes: Sequence[ClassSpec]) -> dict[str, list[str]]:
    """The names of the categories that make up each class."""
    known = {category.name for category in instances.categories}
    names: dict[str, list[str]] = {}
    for entry in classes:
        if isinstance(entry, str):
            names[entry] = [entry]
            continue
        for name, members in entry.items():
            if isinstance(members, Mapping):
                wanted = members["supercategory"]
                members = [c.name for c in instances.categories if c.supercategory == wanted]
                if not members:
                    supers = sorted({c.supercategory for c in instances.categories} - {""})
                    raise UserError(
                        f"filter.classes: no category has the supercategory {wanted!r}; the "
                        f"annotations have: {_shown(supers)}"
                    )
            names[name] = list(dict.fromkeys(members))
    owners: dict[str, str] = {}
    for name, members in names.items():
        for member in members:
            if member not in known:
                in_order = [category.name for category in instances.categories]
                raise UserError(
                    f"filter.classes: unknown class {member!r}; the annotations have: "
                    f"{_shown(in_order)}"
                )
            if owners.setdefault(member, name) != name:
                raise UserError(
                    f"filter.classes: {member!r} belongs to both {owners[member]!r} and {name!r}"
                )
    return names


def _used_names(instances: Instances) -> list[str]:
    """The names of the categories that have annotations, by category id.

    Some tools (Roboflow) list a category that stands for the others and has no annotations. A
    category called background is label 0 already.
    """
    used = {annotation.category_id for annotation in instances.annotations}
    categories = sorted(instances.categories, key=lambda category: category.id)
    names = [c.name for c in categories if c.id in used and c.name != "background"]
    return list(dict.fromkeys(names))


def _check_class_name(name: str) -> None:
    if name in _RESERVED:
        raise UserError(
            f"filter.classes: {name!r} is the name of {_RESERVED[name]}; rename the class: "
            f"`{{other_name: [{name}]}}`"
        )
    if len(flat_name(name).encode()) > MAX_NAME_BYTES:
        raise UserError(f"filter.classes: {name[:40]!r}… is too long for a file name")


def _shown(names: Sequence[str]) -> str:
    """Names for a message. COCO has 80; a damaged file may have any number of any length."""
    return ", ".join(ascii(name)[1:-1] for name in names)[:1000] or "none"
