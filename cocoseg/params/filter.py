"""Section `filter`: which images and annotations are selected."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from cocoseg.params.reader import NonNegativeInt, PositiveInt, Section


class FilterParams(Section):
    classes: (
        Literal["all"]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=254)]
    )
    max_instances: PositiveInt
    max_images: PositiveInt
    prefer: Literal["rare", "random", "first"]
    seed: NonNegativeInt
    exclude: Annotated[str, Field(min_length=1)]

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str] | str) -> list[str] | str:
        if isinstance(classes, str):
            return classes
        repeated = sorted({name for name in classes if classes.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is listed more than once")
        if "background" in classes:
            raise ValueError("background is always label 0; list only the other classes")
        return classes
