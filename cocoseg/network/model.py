"""The segmentation network: build, load pretrained weights, save and load.

model = build_model("deeplabv3_mobilenet_v3_large", classes=6)
save_model(Path("models/model.safetensors"), model, card)
model, card = load_model(Path("models/model.safetensors"))
"""

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import (
    WeightsEnum,
    get_model,
    get_model_weights,
    list_models,
    mobilenet_v3_large,
    segmentation,
)
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPPPooling
from torchvision.models.segmentation.lraspp import LRASPPHead

from cocoseg.common.errors import UserError
from cocoseg.common.files import atomic_file
from cocoseg.network.heads import DilatedConv2d, LiteHead, PooledBranch, SkipHead, resize_bilinear

State = Mapping[str, Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_BACKBONES = {
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

_AUXILIARY = "aux_classifier."

_VOC_NAMES = {"airplane": "aeroplane", "motorcycle": "motorbike", "background": "__background__"}
"""The names under which torchvision's COCO weights, made for Pascal VOC's classes, know ours."""


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


def load_pretrained(model: SegmentationNetwork, weights: str, card: ModelCard) -> str:
    """Start `model` from `weights`; returns one line that says what was loaded.

    `weights` is `none`, `imagenet` (torchvision's backbone), `coco` (torchvision's whole network
    for Pascal VOC's classes: the classifiers take over the rows of classes with the same name), or
    the path of a safetensors file with a backbone or a whole model. Raises UserError where a file
    is missing, cannot be downloaded, or does not fit.
    """
    if weights == "none":
        return "random weights"
    if weights == "imagenet":
        enum = get_model_weights(_BACKBONES[card.architecture])["IMAGENET1K_V1"]
        return _load_backbone(model, _download(enum), "ImageNet")
    if weights == "coco":
        if card.architecture not in list_models(module=segmentation):
            raise UserError(
                f"train.weights: there are no coco weights of {card.architecture}: imagenet has "
                "the backbone's"
            )
        enum = get_model_weights(card.architecture)["COCO_WITH_VOC_LABELS_V1"]
        return _load_by_class_name(model, _download(enum), enum.meta["categories"], card.classes)
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            f"train.weights: {weights} is none of none, imagenet, coco, and no such file exists"
        )
    state = _read_safetensors(path)
    # The name alone: the answer is committed, and folders differ from machine to machine.
    if any(key.startswith("backbone.") for key in state):
        return _load_whole(model, state, path.name)
    return _load_backbone(model, state, path.name)


def _download(weights: WeightsEnum) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # RuntimeError: what came has another hash
        raise UserError(
            f"train.weights: cannot download {weights.url}: {getattr(error, 'reason', error)}; "
            "check the network, or name a safetensors file"
        ) from None
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return {key: value.float() for key, value in load_file(path).items()}
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file, or damaged: {error}") from None


def _load_backbone(model: nn.Module, state: State, source: str) -> str:
    backbone = model.get_submodule("backbone")
    wanted = backbone.state_dict()
    given = {key.removeprefix("features."): value for key, value in state.items()}
    missing = sorted(set(wanted) - set(given) | _misfits(wanted, given))
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"train.weights: {source} does not fit the backbone: {len(missing)} of {len(wanted)} "
            f"tensors are missing or of another shape, first {missing[0]}"
        )
    backbone.load_state_dict({key: given[key] for key in wanted if key in given}, strict=False)
    return f"backbone from {source}, random heads"


def _load_whole(model: SegmentationNetwork, state: State, source: str) -> str:
    if model.aux_classifier is None:
        state = {k: v for k, v in state.items() if not k.startswith(_AUXILIARY)}
    wanted = model.state_dict()
    misfits = sorted(set(wanted) ^ set(state) | _misfits(wanted, state))
    if misfits:
        raise UserError(
            f"train.weights: {source} does not fit the model: {len(misfits)} of {len(wanted)} "
            f"tensors are missing, unknown or of another shape, first {misfits[0]}"
        )
    model.load_state_dict(dict(state))
    return f"whole model from {source}"


def _misfits(wanted: State, given: State) -> set[str]:
    return {key for key in wanted if key in given and wanted[key].shape != given[key].shape}


def _load_by_class_name(
    model: nn.Module, state: State, their_names: Sequence[str], our_names: Sequence[str]
) -> str:
    """Load what has the same shape, and of the classifiers the rows of shared classes."""
    wanted = model.state_dict()
    matched = [name for name in our_names if _VOC_NAMES.get(name, name) in their_names]
    for key, ours in wanted.items():
        theirs = state[key]
        if theirs.shape == ours.shape:
            wanted[key] = theirs
        else:
            for name in matched:
                row = their_names.index(_VOC_NAMES.get(name, name))
                ours[our_names.index(name)] = theirs[row]
    model.load_state_dict(wanted)
    return f"torchvision's COCO weights, classifier rows of {', '.join(matched)}"


def save_model(path: Path, model: SegmentationNetwork, card: ModelCard) -> None:
    """Write the weights and the card as safetensors: same weights, same bytes."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic_file(path) as temporary:
        # One metadata entry only: safetensors writes several in no fixed order.
        save_file(state, temporary, metadata={"cocoseg": msgspec.json.encode(card).decode()})


def load_model(path: Path) -> tuple[SegmentationNetwork, ModelCard]:
    """Read what `save_model` wrote; the model is in evaluation mode, on the CPU.

    Raises UserError when the file is missing, damaged, or not from this project.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file of it")
    if not path.is_file():
        raise UserError(
            f"{path} not found: `dvc repro train` makes it, `dvc pull` fetches it, in the "
            "project's folder"
        )
    state = _read_safetensors(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "cocoseg" not in metadata:
        raise UserError(f"{path} has no cocoseg metadata: it was not written by the train stage")
    card = msgspec.json.decode(metadata["cocoseg"], type=ModelCard)
    if card.architecture not in _BACKBONES:
        raise UserError(f"{path} holds a {card.architecture}, which this version does not know")
    auxiliary = any(key.startswith(_AUXILIARY) for key in state)
    model = build_model(card.architecture, len(card.classes), auxiliary=auxiliary)
    _load_whole(model, state, str(path))
    return model.eval(), card
