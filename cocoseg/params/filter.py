"""Section `filter`: which images and annotations are selected."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from cocoseg.params.reader import Fraction, NonNegativeInt, PositiveInt, Section


def _check_class(entry: Any) -> Any:
    name, members = entry, [entry]
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, members),) = entry.items()
    if isinstance(members, dict) and members.keys() == {"supercategory"}:
        members = [members["supercategory"]]
    names = [name, *members] if isinstance(members, list) and members else [None]
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError("expected a name, {class: [names]} or {class: {supercategory: name}}")
    return entry


SelectedClass = Annotated[Any, AfterValidator(_check_class)]
"""A category's name, `{class: [categories]}` or `{class: {supercategory: name}}`."""


class FilterParams(Section):
    classes: Literal["all"] | Annotated[list[SelectedClass], Field(min_length=1, max_length=254)]
    max_instances: PositiveInt
    max_images: PositiveInt
    prefer: Literal["rare", "random", "first"]
    out_of_bounds: Literal["drop", "clip"]
    empty_fraction: Fraction
    seed: NonNegativeInt
    exclude: Annotated[str, Field(min_length=1)]

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[Any] | str) -> list[Any] | str:
        if isinstance(classes, str):
            return classes
        names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in classes]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is listed more than once")
        if "background" in names:
            raise ValueError("background is always label 0; list only the other classes")
        return classes
