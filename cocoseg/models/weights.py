"""Weights of a network: pretrained ones, and model files with a card that explains them.

save_model(Path("models/model.safetensors"), model, card)
model, card = load_model(Path("models/model.safetensors"))
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights, list_models, segmentation

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.models.networks import BACKBONES, ModelCard, SegmentationNetwork, build_model

StateDict = Mapping[str, Tensor]

_AUXILIARY = "aux_classifier."

_VOC_NAMES = {"airplane": "aeroplane", "motorcycle": "motorbike", "background": "__background__"}
"""The names of these classes in torchvision's COCO weights, which use Pascal VOC's classes."""


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
        enum = get_model_weights(BACKBONES[card.architecture])["IMAGENET1K_V1"]
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


def _load_backbone(model: nn.Module, state: StateDict, source: str) -> str:
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


def _load_whole(model: SegmentationNetwork, state: StateDict, source: str) -> str:
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


def _misfits(wanted: StateDict, given: StateDict) -> set[str]:
    return {key for key in wanted if key in given and wanted[key].shape != given[key].shape}


def _load_by_class_name(
    model: nn.Module, state: StateDict, their_names: Sequence[str], our_names: Sequence[str]
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
    if card.architecture not in BACKBONES:
        raise UserError(f"{path} holds a {card.architecture}, which this version does not know")
    auxiliary = any(key.startswith(_AUXILIARY) for key in state)
    model = build_model(card.architecture, len(card.classes), auxiliary=auxiliary)
    _load_whole(model, state, str(path))
    return model.eval(), card
