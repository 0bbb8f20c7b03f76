"""Building segmentation networks and preparing them for inference.

model = build_model("deeplabv3_mobilenet_v3_large", classes=6)
model = build_model("segformer", classes=6, encoder="mit_b0")

The networks of torchvision have their backbone in their name. Those of segmentation-models-pytorch,
an optional dependency, combine a decoder with any of its encoders.
"""

import copy
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import get_model, mobilenet_v3_large
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPPPooling
from torchvision.models.segmentation.lraspp import LRASPPHead

from cocoseg.core.errors import UserError
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
    # segmentation-models-pytorch, with any encoder
    "deeplabv3": 8,
    "deeplabv3plus": 4,
    "fpn": 4,
    "linknet": 1,
    "manet": 1,
    "segformer": 4,
    "unet": 1,
    "unetplusplus": 1,
}
"""The stride of each network's logits, before upsampling, in pixels of its input."""


@dataclass(frozen=True)
class ModelCard:
    """The metadata of a model file: everything required to run the network.

    Attributes:
        architecture: the name of the network, a key of `OUTPUT_STRIDES`.
        classes: the class names in label order, background first.
        size: the shorter side in pixels to which images are resized for the network.
        mean: the means by which RGB values from 0 to 1 are normalized.
        std: the standard deviations by which they are normalized.
        encoder: the encoder, if the architecture is one of segmentation-models-pytorch.
        pretraining_overlap: whether the training began, directly or through other models, with
            torchvision's COCO weights, which were trained on most of val2014.
    """

    architecture: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    encoder: str | None = None
    pretraining_overlap: bool = False


def parse_card(text: str, path: Path) -> ModelCard:
    """Parse the model card in the metadata of a model file.

    Args:
        text: JSON.
        path: the file, for the error message.

    Raises:
        UserError: the text is not a model card.
    """
    try:
        return msgspec.json.decode(text, type=ModelCard)
    except msgspec.DecodeError as error:
        raise UserError(
            f"{path} has a model card that this version of cocoseg does not support: {error}"
        ) from None


def coarse_size(card: ModelCard, images: Tensor) -> tuple[int, int]:
    """(h, w) of the network's logits for images (..., H, W), before upsampling."""
    stride = OUTPUT_STRIDES[card.architecture]
    height, width = images.shape[-2:]
    return math.ceil(height / stride), math.ceil(width / stride)


class SegmentationNetwork(nn.Module):
    """A backbone and its heads, with the parameter names of torchvision's segmentation networks.

    Args:
        backbone: computes feature maps: a list, or a dictionary with "out" or "low" and "high".
        classifier: computes logits from "out", or from all features if there is no "out".
        aux_classifier: computes the logits of the auxiliary head from "aux".
        divisor: a number that height and width of the backbone's input have to be divisible by.
            Images of other sizes are padded at the right and at the bottom.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classifier: nn.Module,
        aux_classifier: nn.Module | None = None,
        divisor: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier
        self.divisor = divisor

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Compute the logits of each head.

        Args:
            images: normalized RGB, float32 (B, 3, H, W).
            size: the (height, width) of the logits; that of the images by default.

        Returns:
            Logits (B, classes, *size): "out", and in training mode "aux" if the network has the
            auxiliary head.
        """
        height, width = images.shape[-2:]
        right, bottom = -width % self.divisor, -height % self.divisor
        if self.divisor > 1:
            images = functional.pad(images, (0, right, 0, bottom))
        features = self.backbone(images)
        has_out = isinstance(features, dict) and "out" in features
        main = self.classifier(features["out"] if has_out else features)
        if self.divisor > 1:
            stride = images.shape[-1] // main.shape[-1]
            # Not `-(-height // stride)`: ONNX rounds negative quotients to zero.
            rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride
            main = main[..., :rows, :columns]
        height, width = size or (height, width)
        logits = {"out": resize_bilinear(main, height, width)}
        if self.training and self.aux_classifier is not None:
            logits["aux"] = resize_bilinear(self.aux_classifier(features["aux"]), height, width)
        return logits


def build_model(
    architecture: str, classes: int, *, encoder: str | None = None, auxiliary: bool = True
) -> SegmentationNetwork:
    """Build a network with random weights, which torch's global generator draws.

    Args:
        architecture: a key of `OUTPUT_STRIDES`: a network of torchvision, DeepLabV3+ with
            MobileNetV3, or an architecture of segmentation-models-pytorch.
        classes: the number of classes, background included.
        encoder: the encoder of an architecture of segmentation-models-pytorch, by the name that
            this library uses.
        auxiliary: whether torchvision's DeepLabV3 and FCN have an auxiliary head. No other network
            has one.

    Raises:
        UserError: segmentation-models-pytorch is not installed, or does not support the encoder.
    """
    if architecture not in BACKBONES:
        network = _build_smp(architecture, str(encoder), classes)
    elif architecture == "deeplabv3plus_mobilenet_v3_large":
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


def import_smp() -> ModuleType:
    """Import segmentation-models-pytorch.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module("segmentation_models_pytorch")
    except ImportError:
        raise UserError(
            "this network requires segmentation-models-pytorch: run `pip install 'cocoseg[smp]'`"
        ) from None


def _build_smp(architecture: str, encoder: str, classes: int) -> SegmentationNetwork:
    smp = import_smp()
    try:
        with warnings.catch_warnings(action="ignore"):
            model = smp.create_model(architecture, encoder, None, classes=classes)
    # The exceptions for unknown and for unsuitable encoders depend on the encoder.
    except Exception as error:
        reason = str(error).strip("'\"").partition("\n")[0].partition(", supported")[0]
        raise UserError(
            f"train.encoder: {architecture} cannot use {encoder!r}: {reason}; see the encoders of "
            "segmentation-models-pytorch, such as mobilenet_v2 or mit_b0"
        ) from None
    model.segmentation_head[1] = nn.Identity()  # upsampling, which this project does itself
    decoder = nn.Sequential(model.decoder, model.segmentation_head)
    return SegmentationNetwork(model.encoder, decoder, divisor=model.encoder.output_stride)


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


def synchronize_norms(model: SegmentationNetwork) -> SegmentationNetwork:
    """Convert batch norms so that they use the statistics of all processes, on GPUs."""
    if any(hasattr(module, "act") for module in model.modules()):
        # PyTorch's function would drop the activations in timm's norms.
        convert = import_module("timm.layers").convert_sync_batchnorm
    else:
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
    converted: SegmentationNetwork = convert(model)
    return converted


def fold_batch_norms(model: SegmentationNetwork) -> SegmentationNetwork:
    """Return a copy in evaluation mode with batch norms folded into the convolutions before them.

    The logits are the same up to rounding, and take a third less time on a CPU. Folding: Jacob et
    al., "Quantization and Training of Neural Networks", 2018, section 3.2.
    """
    folded = copy.deepcopy(model).eval()
    folded.aux_classifier = None  # only for training
    for convolution_name, norm_name in _find_convolutions_with_norm(folded):
        convolution, norm = map(folded.get_submodule, (convolution_name, norm_name))
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        folded.set_submodule(convolution_name, fuse_conv_bn_eval(convolution, norm))
        # A norm of timm includes the activation.
        folded.set_submodule(norm_name, getattr(norm, "act", nn.Identity()))
    return folded.to(memory_format=torch.channels_last)


@torch.inference_mode()
def _find_convolutions_with_norm(model: SegmentationNetwork) -> list[tuple[str, str]]:
    """Names of each convolution whose output a batch norm gets, and of that batch norm.

    Found by running the model, because the order of modules may differ from that of computation.
    """
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensors stay, so no `id` is reused
    pairs: list[tuple[str, str]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output
        elif id(inputs[0]) in outputs:
            pairs.append((names[outputs[id(inputs[0])][0]], names[module]))

    hooks = [
        module.register_forward_hook(record)
        for module in names
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    weight = next(model.parameters())
    model(weight.new_zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return pairs
