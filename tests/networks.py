"""Small networks with random weights that predict every class."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cocoseg.inference.backends import Network, normalize
from cocoseg.models.networks import ModelCard, SegmentationNetwork, build_model

NAMES = ("background", "red", "blue")
CPU = torch.device("cpu")


def blotches(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw an image (H, W, 3) of smooth random colors."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((width, height)))


ENCODERS = {
    "deeplabv3plus": "mobilenet_v2",
    "fpn": "tu-tf_efficientnet_lite0",
    "segformer": "mit_b0",
    "unet": "tu-mobilenetv4_conv_small",
}
"""Networks of segmentation-models-pytorch: with batch norms of PyTorch and timm, and attention."""

LAST_LAYERS = {
    "deeplabv3_mobilenet_v3_large": "classifier.4",
    "deeplabv3_resnet50": "classifier.4",
    "fcn_resnet50": "classifier.4",
    "deeplabv3plus_mobilenet_v3_large": "classifier.refine.2",
    "lraspp_mobilenet_v3_large": "classifier.high_classifier",
}


@functools.cache
def lively_model(
    architecture: str = "deeplabv3_mobilenet_v3_large", encoder: str | None = None
) -> tuple[SegmentationNetwork, ModelCard]:
    """Build a random model that predicts every class in images of `blotches`.

    Its batch norms have the statistics of such images; the bias of its last layer balances the
    classes.
    """
    torch.manual_seed(0)
    model = build_model(architecture, len(NAMES), encoder=encoder)
    card = ModelCard(architecture, NAMES, 96, encoder=encoder)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a cumulative mean
    rgb = torch.from_numpy(np.stack([blotches(96, 96, seed) for seed in range(8)]))
    with torch.no_grad():
        images = normalize(rgb.permute(0, 3, 1, 2), card)
        model(images)
        logits = model.eval()(images[:1])["out"]
        last = LAST_LAYERS.get(architecture, "classifier.1.0")
        model.get_parameter(f"{last}.bias").sub_(logits.mean(dim=(0, 2, 3)))
    return model, card


@dataclass
class FunctionNetwork(Network):
    """A Network that calls a function."""

    function: Callable[[Tensor, tuple[int, int]], Tensor]
    card: ModelCard
    device: torch.device = CPU

    def __call__(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        return self.function(images, size)
