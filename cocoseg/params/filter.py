"""Section `filter`: which images and annotations are selected."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from cocoseg.params.reader import Fraction, NonNegativeInt, PositiveInt, Section

Name = Annotated[str, Field(min_length=1)]


class Supercategory(Section):
    supercategory: Name


MergedClass = Annotated[
    dict[Name, Annotated[list[Name], Field(min_length=1)] | Supercategory],
    Field(min_length=1, max_length=1),
]
"""`{class: [categories]}` or `{class: {supercategory: name}}`."""


class FilterParams(Section):
    classes: (
        Literal["all"] | Annotated[list[Name | MergedClass], Field(min_length=1, max_length=254)]
    )
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

    def class_specs(self) -> Any:
        """`classes` as plain values, as `curation.classes` expects them."""
        return self.model_dump()["classes"]
