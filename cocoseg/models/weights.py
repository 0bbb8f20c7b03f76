"""Pretrained weights, and model files that hold weights and a model card.

save_model(Path("models/model.safetensors"), model, card)
model, card = load_model(Path("models/model.safetensors"))
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights, list_models, segmentation

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.files import atomic_file
from cocoseg.models.networks import BACKBONES, ModelCard, SegmentationNetwork, build_model

StateDict = Mapping[str, Tensor]

_AUXILIARY = "aux_classifier."

_VOC_NAMES = {"airplane": "aeroplane", "motorcycle": "motorbike", "background": "__background__"}
"""COCO class names and their Pascal VOC equivalents, which torchvision's COCO weights use."""


def load_pretrained(model: SegmentationNetwork, weights: str, card: ModelCard) -> str:
    """Load initial weights into a network.

    Args:
        model: the network; changed in place.
        weights: `none`, `imagenet`, `coco`, or the path of a safetensors file with a backbone or a
            whole model. `imagenet` is torchvision's backbone. `coco` is torchvision's whole
            network, trained on the Pascal VOC classes: the classifiers copy the rows of classes
            with the same name.
        card: the architecture and classes of the network.

    Returns:
        A line that describes the loaded weights.

    Raises:
        UserError: the file is missing, cannot be downloaded or does not fit the network.
    """
    if weights == "none":
        return "random weights"
    if weights == "imagenet":
        enum = get_model_weights(BACKBONES[card.architecture])["IMAGENET1K_V1"]
        return _load_backbone(model, _download(enum), "ImageNet")
    if weights == "coco":
        if card.architecture not in list_models(module=segmentation):
            raise UserError(
                f"train.weights: torchvision has no coco weights for {card.architecture}; use "
                "imagenet, which initializes the backbone"
            )
        enum = get_model_weights(card.architecture)["COCO_WITH_VOC_LABELS_V1"]
        return _load_by_class_name(model, _download(enum), enum.meta["categories"], card.classes)
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            f"train.weights: expected none, imagenet, coco or a safetensors file, got {weights}, "
            "which does not exist"
        )
    state = _read_safetensors(path)
    # The file name without its directory, which differs between machines: the line is committed.
    if any(key.startswith("backbone.") for key in state):
        return _load_whole(model, state, path.name)
    return _load_backbone(model, state, path.name)


def _download(weights: WeightsEnum) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash does not match
        raise UserError(
            f"train.weights: cannot download {weights.url}: {getattr(error, 'reason', error)}; "
            "check the network connection, or use a safetensors file"
        ) from None
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return {key: value.float() for key, value in load_file(path).items()}
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or not a safetensors file: {error}") from None


def _load_backbone(model: nn.Module, state: StateDict, source: str) -> str:
    backbone = model.get_submodule("backbone")
    expected = backbone.state_dict()
    given = {key.removeprefix("features."): value for key, value in state.items()}
    missing = sorted(set(expected) - set(given) | _misfits(expected, given))
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"train.weights: {source} does not fit the backbone: {len(missing)} of "
            f"{len(expected)} tensors are missing or have another shape, such as {missing[0]}"
        )
    backbone.load_state_dict({key: given[key] for key in expected if key in given}, strict=False)
    return f"backbone from {source}, random heads"


def _load_whole(model: SegmentationNetwork, state: StateDict, source: str) -> str:
    if model.aux_classifier is None:
        state = {k: v for k, v in state.items() if not k.startswith(_AUXILIARY)}
    expected = model.state_dict()
    misfits = sorted(set(expected) ^ set(state) | _misfits(expected, state))
    if misfits:
        raise UserError(
            f"train.weights: {source} does not fit the model: {len(misfits)} of {len(expected)} "
            f"tensors are missing, unexpected or have another shape, such as {misfits[0]}"
        )
    model.load_state_dict(dict(state))
    return f"whole model from {source}"


def _misfits(expected: StateDict, given: StateDict) -> set[str]:
    return {key for key in expected if key in given and expected[key].shape != given[key].shape}


def _load_by_class_name(
    model: nn.Module, state: StateDict, their_names: Sequence[str], our_names: Sequence[str]
) -> str:
    """Load tensors of equal shape, and the classifiers' rows of the classes that both know."""
    expected = model.state_dict()
    matched = [name for name in our_names if _VOC_NAMES.get(name, name) in their_names]
    for key, ours in expected.items():
        theirs = state[key]
        if theirs.shape == ours.shape:
            expected[key] = theirs
        else:
            for name in matched:
                row = their_names.index(_VOC_NAMES.get(name, name))
                ours[our_names.index(name)] = theirs[row]
    model.load_state_dict(expected)
    return f"torchvision's COCO weights, classifier rows of {', '.join(matched)}"


def save_model(path: Path, model: SegmentationNetwork, card: ModelCard) -> None:
    """Write weights and card as a safetensors file; equal weights give equal bytes."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic_file(path) as temporary:
        # A single metadata entry: safetensors writes several in random order.
        save_file(state, temporary, metadata={"cocoseg": msgspec.json.encode(card).decode()})


def load_model(path: Path) -> tuple[SegmentationNetwork, ModelCard]:
    """Read a file of `save_model`.

    Returns:
        The network in evaluation mode on the CPU, and its card.

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is damaged or not from this project.
    """
    if path.is_dir():
        raise UserError(f"{path} is a directory: specify a model file in it")
    if not path.is_file():
        raise MissingFileError(
            f"{path} not found: in the project's directory, create it with `dvc repro train` or "
            "fetch it with `dvc pull`"
        )
    state = _read_safetensors(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "cocoseg" not in metadata:
        raise UserError(f"{path} has no cocoseg metadata: use a file that the train stage wrote")
    card = msgspec.json.decode(metadata["cocoseg"], type=ModelCard)
    if card.architecture not in BACKBONES:
        raise UserError(
            f"{path} contains a {card.architecture}, which this version of cocoseg does not support"
        )
    auxiliary = any(key.startswith(_AUXILIARY) for key in state)
    with torch.random.fork_rng(devices=[]):  # the initial weights draw from the global generator
        model = build_model(card.architecture, len(card.classes), auxiliary=auxiliary)
    _load_whole(model, state, str(path))
    return model.eval(), card
