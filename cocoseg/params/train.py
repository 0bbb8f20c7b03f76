"""Section `train`: the network and its training."""

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from cocoseg.params.reader import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    matching,
)

_BACKBONES = ("_mobilenet_v3_large", "_resnet50", "_resnet101")
"""Architectures that end so, of torchvision, have their encoder in their name."""


class TrainParams(Section):
    architecture: Literal[
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3plus_mobilenet_v3_large",
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "fcn_resnet50",
        "fcn_resnet101",
        "lraspp_mobilenet_v3_large",
        "deeplabv3",
        "deeplabv3plus",
        "fpn",
        "linknet",
        "manet",
        "segformer",
        "unet",
        "unetplusplus",
    ]
    encoder: Annotated[str, Field(min_length=1)] | None
    weights: Annotated[
        str,
        matching(
            r"none|imagenet|coco|run:\S+|weights/[^/]+\.safetensors",
            "none, imagenet, coco, run:REVISION (the model of a commit, tag or experiment) or a "
            "safetensors file in weights/",
        ),
    ]
    size: Annotated[int, Field(ge=32)]
    crop: Annotated[int, Field(ge=32)]
    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    lr: PositiveFloat
    backbone_lr_factor: PositiveFloat
    warmup: Fraction
    weight_decay: NonNegativeFloat
    ema_decay: Annotated[float, Field(ge=0, lt=1)]  # 1 keeps the weights of the first step
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

    @field_validator("encoder")
    @classmethod
    def _belongs_to_architecture(cls, encoder: str | None, others: ValidationInfo) -> str | None:
        architecture = others.data.get("architecture")
        if architecture is None:  # reported already
            return encoder
        has_own = architecture.endswith(_BACKBONES)
        if has_own and encoder:
            raise ValueError(f"expected null, because {architecture} names its encoder")
        if not has_own and not encoder:
            raise ValueError(f"expected an encoder for {architecture}, such as mobilenet_v2")
        if not has_own and find_spec("segmentation_models_pytorch") is None:
            raise ValueError(
                f"{architecture} requires segmentation-models-pytorch: run "
                "`pip install 'cocoseg[smp]'`"
            )
        return encoder

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
