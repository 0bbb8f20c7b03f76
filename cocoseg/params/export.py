"""Section `export`: the ONNX files and the accuracy that each may lose."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from cocoseg.params.reader import NonNegativeFloat, PositiveInt, Section


class MaxLoss(Section):
    float32: NonNegativeFloat
    float16: NonNegativeFloat
    int8: NonNegativeFloat


class ExportParams(Section):
    opset: Annotated[int, Field(ge=13, le=20)]
    variants: list[Literal["float32", "float16", "int8"]]
    output: Literal["logits", "labels", "both"]
    fixed_size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None
    max_loss: MaxLoss
    calibration_images: PositiveInt
    batch_size: PositiveInt
    threads: PositiveInt

    @field_validator("variants")
    @classmethod
    def _include_float32(cls, variants: list[str]) -> list[str]:
        if "float32" not in variants or len(set(variants)) < len(variants):
            raise ValueError("expected distinct variants that include float32")
        return variants
