"""Section `evaluate`: how the model is scored."""

from typing import Annotated, Literal

from pydantic import Field

from cocoseg.params.reader import NonNegativeInt, PositiveFloat, PositiveInt, Section


class EvaluateParams(Section):
    batch_size: PositiveInt
    threads: PositiveInt
    examples: NonNegativeInt
    scales: Annotated[list[PositiveFloat], Field(min_length=1, max_length=8)]
    flip: bool
    tiles: Annotated[int, Field(ge=32)] | Literal["full"] | None
