"""Section `filter`: which images and annotations are selected."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from cocoseg.params.reader import Fraction, NonNegativeInt, PositiveInt, Section

Name = Annotated[str, Field(min_length=1)]


class Supercategory(Section):
    supercategory: Name


def _kind_of_members(members: Any) -> str:
    return "a list" if isinstance(members, list) else "a supercategory"


MergedClass = Annotated[
    dict[
        Name,
        Annotated[
            Annotated[Annotated[list[Name], Field(min_length=1)], Tag("a list")]
            | Annotated[Supercategory, Tag("a supercategory")],
            Discriminator(_kind_of_members),
        ],
    ],
    Field(min_length=1, max_length=1),
]
"""`{class: [categories]}` or `{class: {supercategory: name}}`."""


def _kind_of_class(entry: Any) -> str:
    return "a merged class" if isinstance(entry, dict) else "a name"


class FilterParams(Section):
    classes: Annotated[
        Annotated[Literal["all"], Tag("a word")]
        | Annotated[
            list[
                Annotated[
                    Annotated[Name, Tag("a name")] | Annotated[MergedClass, Tag("a merged class")],
                    Discriminator(_kind_of_class),
                ]
            ],
            Field(min_length=1, max_length=254),
            Tag("a list"),
        ],
        Discriminator(lambda classes: "a word" if isinstance(classes, str) else "a list"),
    ]
    max_instances: PositiveInt
    max_images: PositiveInt
    prefer: Literal["rare", "random", "first"]
    out_of_bounds: Literal["drop", "clip"]
    empty_fraction: Fraction
    seed: NonNegativeInt
    exclude: Annotated[str, Field(min_length=1)]

    @field_validator("classes")
    @classmethod
    def _no_class_twice(cls, classes: list[Any] | str) -> list[Any] | str:
        if isinstance(classes, str):
            return classes
        names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in classes]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is listed more than once")
        if "background" in names:
            raise ValueError("background is label 0 already; list the other classes only")
        return classes

    def class_specs(self) -> Any:
        """`classes` as plain values, as `curation.classes` expects them."""
        return self.model_dump()["classes"]
