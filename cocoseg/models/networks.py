"""Building segmentation networks and preparing them for inference.

model = build_model("deeplabv3_mobilenet_v3_large", classes=6)
"""

import copy
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import get_model, mobilenet_v3_large
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
    "fcn_resnet50": "resnet50",
    "fcn_resnet101": "resnet101",
    "lraspp_mobilenet_v3_large": "mobilenet_v3_large",
}

OUTPUT_STRIDES = {
    "deeplabv3_mobilenet_v3_large": 16,
    "deeplabv3plus_mobilenet_v3_large": 4,
    "deeplabv3_resnet50": 8,
    "deeplabv3_resnet101": 8,
    "fcn_resnet50": 8,
    "fcn_resnet101": 8,
    "lraspp_mobilenet_v3_large": 8,
}
"""The stride of each network's logits, before upsampling, in pixels of its input."""


@dataclass(frozen=True)
class ModelCard:
    """The metadata of a model file: everything required to run the network.

    Attributes:
        architecture: the name of the network, a key of `BACKBONES`.
        classes: the class names in label order, background first.
        size: the shorter side in pixels to which images are resized for the network.
        mean: the means by which RGB values from 0 to 1 are normalized.
        std: the standard deviations by which they are normalized.
        pretraining_overlap: whether the training began, directly or through other models, with
            torchvision's COCO weights, which were trained on most of val2014.
    """

    architecture: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    pretraining_overlap: bool = field(default=False, kw_only=True)


def coarse_size(card: ModelCard, images: Tensor) -> tuple[int, int]:
    """(h, w) of the network's logits for images (..., H, W), before upsampling."""
    stride = OUTPUT_STRIDES[card.architecture]
    height, width = images.shape[-2:]
    return math.ceil(height / stride), math.ceil(width / stride)


class SegmentationNetwork(nn.Module):
    """A backbone and its heads, with the parameter names of torchvision's segmentation networks."""

    def __init__(
        self, backbone: nn.Module, classifier: nn.Module, aux_classifier: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Compute the logits of each head.

        Args:
            images: normalized RGB, float32 (B, 3, H, W).
            size: the (height, width) of the logits; that of the images by default.

        Returns:
            Logits (B, classes, *size): "out", and in training mode "aux" if the network has the
            auxiliary head.
        """
        height, width = size or images.shape[-2:]
        features = self.backbone(images)
        main = self.classifier(features if "low" in features else features["out"])
        logits = {"out": resize_bilinear(main, height, width)}
        if self.training and self.aux_classifier is not None:
            logits["aux"] = resize_bilinear(self.aux_classifier(features["aux"]), height, width)
        return logits


def build_model(architecture: str, classes: int, *, auxiliary: bool = True) -> SegmentationNetwork:
    """Build a network with random weights, which torch's global generator draws.

    Args:
        architecture: a key of `BACKBONES`: a network of torchvision, or DeepLabV3+.
        classes: the number of classes, background included.
        auxiliary: whether DeepLabV3 and FCN have an auxiliary head. The other networks never do.
    """
    if architecture == "deeplabv3plus_mobilenet_v3_large":
        features = mobilenet_v3_large(dilated=True).features
        # Layer 3 is the last one at a quarter of the resolution, layer 16 the last of all.
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
    """Replace the running statistics of batch norms by their mean over batches ("Precise BN").

    Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3. Dropout is disabled
    meanwhile. Afterwards the model is in evaluation mode.

    Args:
        model: the network.
        batches: normalized images, float32 (B, 3, H, W).
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a cumulative mean instead of a moving one
            module.train()
    for images in batches:
        model(images)
    model.eval()


def fold_batch_norms(model: SegmentationNetwork) -> SegmentationNetwork:
    """Return a copy in evaluation mode with batch norms folded into the convolutions before them.

    The logits are the same up to rounding, and take a third less time on a CPU. Folding: Jacob et
    al., "Quantization and Training of Neural Networks", 2018, section 3.2.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        children = list(module.named_children())
        for (name, convolution), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_name, nn.Identity())
    return folded.to(memory_format=torch.channels_last)
