"""Segmentation heads: faster, deterministic forms of torchvision's, and DeepLabV3+'s."""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import ASPPPooling
from torchvision.models.segmentation.lraspp import LRASPPHead
from torchvision.ops import Conv2dNormActivation


class DilatedConv2d(nn.Conv2d):
    """A 3x3 convolution that skips the kernel rows and columns that cover only padding.

    If the dilation is at least the height (width) of the feature map, all kernel rows (columns)
    except the middle one fall outside the map. With an output stride of 16, the atrous rates 12, 24
    and 36 reach this point for images below 192, 384 and 576 pixels. The result is the same and
    takes as little as one ninth of the operations.
    """

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[-2:]
        weight = self.weight
        if self.dilation[0] >= height:
            weight = weight[:, :, 1:2, :]
        if self.dilation[1] >= width:
            weight = weight[:, :, :, 1:2]
        padding = [d * (k // 2) for d, k in zip(self.dilation, weight.shape[2:], strict=True)]
        return functional.conv2d(
            input, weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # the cached tensors are also used in training
def _bilinear_weights(inputs: int, outputs: int, device: torch.device) -> Tensor:
    """The matrix (outputs, inputs) that resizes one axis as with `align_corners=False`."""
    source = ((torch.arange(outputs, dtype=torch.float64) + 0.5) * inputs / outputs - 0.5).clamp(0)
    lower = source.long().clamp(max=inputs - 1)
    upper = (lower + 1).clamp(max=inputs - 1)
    fraction = source - lower
    weights = torch.zeros(outputs, inputs, dtype=torch.float64)
    rows = torch.arange(outputs)
    weights[rows, lower] += 1 - fraction
    weights[rows, upper] += fraction
    return weights.to(device)


def resize_bilinear(maps: Tensor, height: int, width: int) -> Tensor:
    """Resize as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` does.

    The resizing is a matrix product per axis. Unlike `interpolate`, it has a deterministic backward
    pass on CUDA.

    Args:
        maps: floating point (B, C, h, w).
        height: the number of rows of the result.
        width: the number of columns of the result.

    Returns:
        The resized maps (B, C, height, width), float32 or float64.
    """
    if torch.jit.is_tracing():  # ONNX graphs have dynamic sizes
        return functional.interpolate(maps, (height, width), mode="bilinear")
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32)).contiguous()
    rows = _bilinear_weights(maps.shape[2], height, maps.device).to(maps.dtype)
    columns = _bilinear_weights(maps.shape[3], width, maps.device).to(maps.dtype)
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ (maps @ columns.T)


class LiteHead(LRASPPHead):  # type: ignore[misc]
    """The head of Lite R-ASPP, with `resize_bilinear` instead of `interpolate`."""

    def forward(self, input: dict[str, Tensor]) -> Tensor:
        low, high = input["low"], input["high"]
        features = resize_bilinear(self.cbr(high) * self.scale(high), *low.shape[-2:])
        logits: Tensor = self.low_classifier(low) + self.high_classifier(features)
        return logits


class PooledBranch(ASPPPooling):  # type: ignore[misc]
    """The image-level features of DeepLabV3, expanded over the map instead of interpolated."""

    def forward(self, input: Tensor) -> Tensor:
        pooled = input
        for module in self:
            pooled = module(pooled)
        return pooled.expand(-1, -1, *input.shape[-2:])


class SkipHead(nn.Module):
    """The DeepLabV3+ decoder: atrous spatial pyramid pooling, refined by low-level features.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
    Segmentation", 2018, section 3. The default is half the channels of the paper, which makes the
    network as fast as DeepLabV3.

    Args:
        low: the channels of the low-level features.
        high: the channels of the high-level features, at a quarter of that resolution.
        classes: the channels of the logits.
        channels: the channels of each branch and of the decoder.
    """

    def __init__(self, low: int, high: int, classes: int, channels: int = 128) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                Conv2dNormActivation(high, channels, 1),
                *(_separable(high, channels, dilation) for dilation in (12, 24, 36)),
                PooledBranch(high, channels),
            ]
        )
        self.project = nn.Sequential(
            Conv2dNormActivation(len(self.branches) * channels, channels, 1), nn.Dropout(0.1)
        )
        self.reduce = Conv2dNormActivation(low, 48, 1)
        self.refine = nn.Sequential(
            _separable(channels + 48, channels),
            _separable(channels, channels),
            nn.Conv2d(channels, classes, 1),
        )

    def forward(self, input: dict[str, Tensor]) -> Tensor:
        low, high = self.reduce(input["low"]), input["high"]
        context = self.project(torch.cat([branch(high) for branch in self.branches], dim=1))
        context = resize_bilinear(context, *low.shape[-2:])
        logits: Tensor = self.refine(torch.cat([context, low], dim=1))
        return logits


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """A 3x3 convolution of each channel, then a 1x1 convolution across them."""
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, 3, dilation=dilation, groups=inputs),
        Conv2dNormActivation(inputs, outputs, 1),
    )
