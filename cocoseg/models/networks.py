"""The segmentation networks: build them, and prepare them for inference.

model = build_model("deeplabv3_mobilenet_v3_large", classes=6)
"""

import copy
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import (
    get_model,
    mobilenet_v3_large,
)
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPPPooling
from torchvision.models.segmentation.lraspp import LRASPPHead

from cocoseg.models.heads import DilatedConv2d, LiteHead, PooledBranch, SkipHead, resize_bilinear

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BACKBONES = {
    "deeplabv3_mobilenet_v3_large": "mobilenet_v3_large",
    "deeplabv3plus_mobilenet_v3_large": "mobilenet_v3_large",
    "deeplabv3_resnet50": "resnet50",
    "deeplabv3_resnet101": "resnet101",
    "lraspp_mobilenet_v3_large": "mobilenet_v3_large",
}

OUTPUT_STRIDES = {
    "deeplabv3_mobilenet_v3_large": 16,
    "deeplabv3plus_mobilenet_v3_large": 4,
    "deeplabv3_resnet50": 8,
    "deeplabv3_resnet101": 8,
    "lraspp_mobilenet_v3_large": 8,
}
"""How many pixels of the network's input, in each direction, share one position of its logits."""


@dataclass(frozen=True)
class ModelCard:
    """What a model file says about itself, enough to use it without any other file.

    `classes` are in label order, background first; `size` is the shorter image side in pixels that
    the network was trained for; `mean` and `std` normalise RGB values of 0 to 1.
    """

    architecture: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def coarse_size(card: ModelCard, images: Tensor) -> tuple[int, int]:
    """(H, W) of the logits that the network itself makes of images (…, H, W), not enlarged."""
    stride = OUTPUT_STRIDES[card.architecture]
    height, width = images.shape[-2:]
    return math.ceil(height / stride), math.ceil(width / stride)


class SegmentationNetwork(nn.Module):
    """A backbone and its heads, under the names of torchvision's segmentation networks."""

    def __init__(
        self, backbone: nn.Module, classifier: nn.Module, aux_classifier: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) to logits (B, classes, *size) by head.

        `size` is (H, W) unless given. The auxiliary head ("aux") answers in training mode only.
        """
        height, width = size or images.shape[-2:]
        features = self.backbone(images)
        main = self.classifier(features if "low" in features else features["out"])
        logits = {"out": resize_bilinear(main, height, width)}
        if self.training and self.aux_classifier is not None:
            logits["aux"] = resize_bilinear(self.aux_classifier(features["aux"]), height, width)
        return logits


def build_model(architecture: str, classes: int, *, auxiliary: bool = True) -> SegmentationNetwork:
    """torchvision's network of that name, or DeepLabV3+, with random weights.

    DeepLabV3 gets its auxiliary head if `auxiliary`; the others have none. The weights come from
    torch's global generator: seed it before.
    """
    if architecture == "deeplabv3plus_mobilenet_v3_large":
        features = mobilenet_v3_large(dilated=True).features
        # The end of the stage at a quarter of the resolution, and of the last.
        backbone = IntermediateLayerGetter(features, {"3": "low", "16": "high"})
        network = SegmentationNetwork(backbone, SkipHead(24, 960, classes))
    else:
        options = {} if architecture.startswith("lraspp") else {"aux_loss": auxiliary}
        model: nn.Module = get_model(
            architecture, weights=None, weights_backbone=None, num_classes=classes, **options
        )
        network = SegmentationNetwork(
            model.get_submodule("backbone"),
            model.get_submodule("classifier"),
            getattr(model, "aux_classifier", None),
        )
    for module in network.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (3, 3) and module.dilation[0] > 4:
            module.__class__ = DilatedConv2d
        elif type(module) is LRASPPHead:
            module.__class__ = LiteHead
        elif type(module) is ASPPPooling:
            module.__class__ = PooledBranch
    return network.to(memory_format=torch.channels_last)


@torch.no_grad()
def estimate_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch norm's statistics to their mean over normalised images (B, 3, H, W).

    "Precise BN": Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3. The model is
    in evaluation mode afterwards, as all but its batch norms are meanwhile: no dropout.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean of all batches
            module.train()
    for images in batches:
        model(images)
    model.eval()


def fold_batch_norms(model: SegmentationNetwork) -> SegmentationNetwork:
    """A copy in evaluation mode, whose convolutions do what the batch norms after them did.

    The result is the same up to rounding, on a CPU a third sooner. Folding: Jacob et al.,
    "Quantization and Training of Neural Networks", 2018, section 3.2.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        children = list(module.named_children())
        for (name, convolution), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_name, nn.Identity())
    return folded.to(memory_format=torch.channels_last)
