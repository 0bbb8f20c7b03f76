"""Section `filter`: which images and annotations are selected."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from cocoseg.params.reader import NonNegativeInt, PositiveInt, Section


class FilterParams(Section):
    classes: Annotated[
        Annotated[Literal["all"], Tag("a word")]
        | Annotated[
            list[Annotated[str, Field(min_length=1)]],
            Field(min_length=1, max_length=254),
            Tag("a list"),
        ],
        Discriminator(lambda classes: "a word" if isinstance(classes, str) else "a list"),
    ]
    max_instances: PositiveInt
    max_images: PositiveInt
    prefer: Literal["rare", "random", "first"]
    seed: NonNegativeInt
    exclude: Annotated[str, Field(min_length=1)]

    @field_validator("classes")
    @classmethod
    def _no_class_twice(cls, classes: list[str] | str) -> list[str] | str:
        if isinstance(classes, str):
            return classes
        repeated = sorted({name for name in classes if classes.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is listed more than once")
        if "background" in classes:
            raise ValueError("background is label 0 already; list the other classes only")
        return classes
