"""Section `train`: the network and its training."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from cocoseg.params.reader import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)


class TrainParams(Section):
    architecture: Literal[
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3plus_mobilenet_v3_large",
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "fcn_resnet50",
        "fcn_resnet101",
        "lraspp_mobilenet_v3_large",
    ]
    weights: Annotated[str, Field(min_length=1)]
    size: Annotated[int, Field(ge=32)]
    crop: Annotated[int, Field(ge=32)]
    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    lr: PositiveFloat
    backbone_lr_factor: PositiveFloat
    warmup: Fraction
    weight_decay: NonNegativeFloat
    ema_decay: Fraction
    aux_weight: NonNegativeFloat
    dice_weight: NonNegativeFloat
    class_weights: Literal["none", "frequency"] | dict[str, PositiveFloat]
    scale: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]
    color_jitter: Fraction
    precision: Literal["float32", "bfloat16"]
    compile: bool
    threads: PositiveInt
    processes: PositiveInt
    seed: NonNegativeInt

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: list[float]) -> list[float]:
        if scale[0] > scale[1]:
            raise ValueError("expected the smaller scale first")
        return scale

    @field_validator("processes")
    @classmethod
    def _divides_batch_size(cls, processes: int, others: ValidationInfo) -> int:
        batch_size = others.data.get("batch_size", 0)
        if batch_size % processes:
            raise ValueError(f"expected a divisor of train.batch_size ({batch_size})")
        return processes
