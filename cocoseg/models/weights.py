"""Pretrained weights, and model files that hold weights and a model card.

save_model(Path("models/model.safetensors"), model, card)
model, card = load_model(Path("models/model.safetensors"))
model, card = load_torchvision("lraspp_mobilenet_v3_large")
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights, list_models, segmentation

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.files import atomic_file
from cocoseg.models.networks import (
    BACKBONES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    OUTPUT_STRIDES,
    ModelCard,
    SegmentationNetwork,
    build_model,
    import_smp,
    parse_card,
)

StateDict = Mapping[str, Tensor]

_AUXILIARY = "aux_classifier."

_COCO_NAMES = {
    "__background__": "background",
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""Pascal VOC class names, which torchvision's COCO weights use, and their COCO equivalents."""


def load_pretrained(model: SegmentationNetwork, weights: str, card: ModelCard) -> str:
    """Load initial weights into a network.

    Args:
        model: the network; changed in place.
        weights: `none`, `imagenet`, `coco`, or the path of a safetensors file with a backbone or a
            whole model. `imagenet` is torchvision's backbone. `coco` is torchvision's whole
            network, trained on the Pascal VOC classes. From a whole model, the classifiers copy
            the rows of the classes with the same name; other rows stay random.
        card: the architecture and classes of the network.

    Returns:
        A line that describes the loaded weights.

    Raises:
        UserError: the file is missing, cannot be downloaded or does not fit the network.
    """
    if weights == "none":
        return "random weights"
    if weights == "imagenet":
        if card.encoder:
            return _load_backbone(model, _download_encoder(card.encoder), "ImageNet")
        enum = get_model_weights(BACKBONES[card.architecture])["IMAGENET1K_V1"]
        return _load_backbone(model, _download(enum, "train.weights"), "ImageNet")
    if weights == "coco":
        if card.architecture not in list_models(module=segmentation):
            raise UserError(
                f"train.weights: torchvision has no coco weights for {card.architecture}; use "
                "imagenet, which initializes the backbone"
            )
        enum, names = _coco_weights(card.architecture)
        state = _download(enum, "train.weights")
        return _load_by_class_name(model, state, names, card, "torchvision's COCO weights")
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            f"train.weights: expected none, imagenet, coco or a safetensors file, got {weights}, "
            "which does not exist"
        )
    state, their_card = _read_tensors(path), _read_card(path)
    # The file name without its directory, which differs between machines: the line is committed.
    if not any(key.startswith("backbone.") for key in state):
        return _load_backbone(model, state, path.name)
    their_names = their_card.classes if their_card else ()
    return _load_by_class_name(model, state, their_names, card, path.name)


def has_pretraining_overlap(weights: str) -> bool:
    """Whether initial weights were trained on most of COCO val2014, directly or before fine-tuning.

    Args:
        weights: as in `load_pretrained`.
    """
    if (path := Path(weights)).is_file():
        card = _read_card(path)
        return card is not None and card.pretraining_overlap
    return weights == "coco"


def _coco_weights(architecture: str) -> tuple[WeightsEnum, list[str]]:
    """torchvision's COCO weights of a segmentation network, and their class names."""
    enum = get_model_weights(architecture)["COCO_WITH_VOC_LABELS_V1"]
    return enum, [_COCO_NAMES.get(name, name) for name in enum.meta["categories"]]


def _download(weights: WeightsEnum, key: str) -> dict[str, Tensor]:
    """Fetch weights, or read them from torch's cache; `key` begins the error message."""
    try:
        with redirect_stdout(sys.stderr):  # torch prints the URL
            state: dict[str, Tensor] = weights.get_state_dict(
                progress=True, check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash does not match
        raise UserError(
            f"{key}: cannot download {weights.url}: {getattr(error, 'reason', error)}; "
            "check the network connection, or use a safetensors file"
        ) from None
    return state


def load_torchvision(name: str) -> tuple[SegmentationNetwork, ModelCard]:
    """Load one of torchvision's segmentation networks with weights trained on COCO.

    The weights are downloaded once, to torch's cache. Their 20 classes are those of Pascal VOC, by
    their COCO names.

    Args:
        name: the name of the network, such as `lraspp_mobilenet_v3_large`.

    Returns:
        The network in evaluation mode on the CPU, and its card.

    Raises:
        UserError: torchvision has no such network, or the weights cannot be downloaded.
    """
    choices = list_models(module=segmentation)
    if name not in choices:
        raise UserError(
            f"torchvision:{name}: torchvision has no such segmentation network; use one of "
            f"{', '.join(choices)}"
        )
    enum, names = _coco_weights(name)
    state = _download(enum, f"torchvision:{name}")
    with torch.random.fork_rng(devices=[]):  # the initial weights draw from the global generator
        model = build_model(name, len(names), auxiliary=False)
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith(_AUXILIARY)})
    (size,) = enum.transforms().resize_size
    return model.eval(), ModelCard(name, tuple(names), size, pretraining_overlap=True)


def input_statistics(
    encoder: str | None, weights: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The means and standard deviations with which images are normalized for training.

    These are the ones of ImageNet, except for models and encoders that were trained with others.

    Args:
        encoder: an encoder of segmentation-models-pytorch, or None.
        weights: the parameter `train.weights`.

    Raises:
        UserError: the statistics cannot be downloaded.
    """
    if (path := Path(weights)).is_file() and (card := _read_card(path)):
        return card.mean, card.std
    if encoder and (weights == "imagenet" or encoder.startswith("tu-")):
        with _downloading(encoder), suppress(ValueError):  # an encoder without pretrained weights
            found = import_smp().encoders.get_preprocessing_params(encoder)
            return tuple(found["mean"]), tuple(found["std"])
    return IMAGENET_MEAN, IMAGENET_STD


def _download_encoder(encoder: str) -> dict[str, Tensor]:
    """Fetch the ImageNet weights of an encoder of segmentation-models-pytorch."""
    with _downloading(encoder):
        weights = True if encoder.startswith("tu-") else "imagenet"
        found = import_smp().encoders.get_encoder(encoder, weights=weights)
    state: dict[str, Tensor] = found.state_dict()
    return state


@contextmanager
def _downloading(encoder: str) -> Iterator[None]:
    """Raise a UserError if the block cannot use the Hugging Face Hub."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).strip("'\"").partition("\n")[0]
        raise UserError(
            f"train.weights: cannot download the ImageNet weights of {encoder}: {reason}; check "
            "the network connection, or use a safetensors file"
        ) from None


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file in float32."""
    with _readable(path):
        return {key: value.float() for key, value in load_file(path).items()}


def _read_card(path: Path) -> ModelCard | None:
    """The model card in the metadata of a safetensors file, if any; reads no tensors."""
    with _readable(path), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return parse_card(metadata["cocoseg"], path) if "cocoseg" in metadata else None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise a UserError if the block cannot read a safetensors file."""
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or not a safetensors file: {error}") from None


def _load_backbone(model: nn.Module, state: StateDict, source: str) -> str:
    backbone = model.get_submodule("backbone")
    expected = backbone.state_dict()
    names = {_bare(key): key for key in expected}
    given = {names[_bare(key)]: value for key, value in state.items() if _bare(key) in names}
    missing = _missing(expected, given)
    if missing:
        raise UserError(
            f"train.weights: {source} does not fit the backbone: {len(missing)} of "
            f"{len(expected)} tensors are missing or have another shape, such as {missing[0]}"
        )
    backbone.load_state_dict({key: given[key] for key in expected if key in given}, strict=False)
    return f"backbone from {source}, random heads"


def _missing(expected: StateDict, given: StateDict) -> list[str]:
    """The expected tensors that are not given or have another shape."""
    return sorted(
        key
        for key, tensor in expected.items()
        if not key.endswith("num_batches_tracked")
        and (key not in given or given[key].shape != tensor.shape)
    )


def _bare(key: str) -> str:
    """The name of a tensor of a backbone without what torchvision, smp and timm put before it."""
    return key.removeprefix("encoder.").removeprefix("features.").removeprefix("model.")


def _load_by_class_name(
    model: SegmentationNetwork,
    state: StateDict,
    their_names: Sequence[str],
    card: ModelCard,
    source: str,
) -> str:
    """Load the backbone, and each classifier that fits with its rows of the classes in common.

    Args:
        model: the network; changed in place.
        state: the tensors of another network.
        their_names: the names of its classes in label order; empty if unknown.
        card: the card of `model`.
        source: the name of `state` in messages.

    Returns:
        A line that names the loaded parts, the loaded rows and the random rows.
    """
    prefix = "backbone."
    backbone = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    line = _load_backbone(model, backbone, source)
    expected, given = model.state_dict(), dict(state)
    common = [name for name in card.classes if name in their_names]
    for key in _tensors_by_class(model, card):
        theirs, rows = given.pop(key, None), expected[key].clone()
        if theirs is not None and theirs.shape == (
            len(their_names) or len(theirs),
            *rows.shape[1:],
        ):
            for name in common:
                rows[card.classes.index(name)] = theirs[their_names.index(name)]
            given[key] = rows
    parts: dict[bool, list[str]] = {True: [], False: []}
    for part in [name for name, _ in model.named_children() if name != "backbone"]:
        own = {key: value for key, value in expected.items() if key.startswith(f"{part}.")}
        fits = not _missing(own, given)
        parts[fits].append(part.replace("aux_", "auxiliary "))
        if fits:
            expected |= {key: given[key] for key in own if key in given}
    model.load_state_dict(expected)
    if not parts[True]:
        return line
    line = f"{', '.join(['backbone', *parts[True]])} from {source}"
    if their_names:
        line += f"; rows of {', '.join(common)}"
    if new := [name for name in card.classes if name not in common]:
        line += f"; random rows of {', '.join(new)}"
    if not their_names:
        line += ", because the file does not name its classes"
    return "".join([line, *(f"; random {part}" for part in parts[False])])


def _tensors_by_class(model: SegmentationNetwork, card: ModelCard) -> list[str]:
    """The tensors with a row for each class: their shape depends on the number of classes."""
    ours = model.state_dict()
    auxiliary = model.aux_classifier is not None
    with torch.random.fork_rng(devices=[]):  # the initial weights draw from the global generator
        larger = build_model(
            card.architecture,
            len(card.classes) + 1,
            encoder=card.encoder,
            auxiliary=auxiliary,
        )
    return [key for key, value in larger.state_dict().items() if value.shape != ours[key].shape]


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
    state, card = _read_tensors(path), _read_card(path)
    if card is None:
        raise UserError(f"{path} has no cocoseg metadata: use a file that the train stage wrote")
    if card.architecture not in OUTPUT_STRIDES:
        raise UserError(
            f"{path} contains a {card.architecture}, which this version of cocoseg does not support"
        )
    auxiliary = any(key.startswith(_AUXILIARY) for key in state)
    with torch.random.fork_rng(devices=[]):  # the initial weights draw from the global generator
        model = build_model(
            card.architecture, len(card.classes), encoder=card.encoder, auxiliary=auxiliary
        )
    if model.state_dict().keys() ^ state.keys() or _missing(model.state_dict(), state):
        raise UserError(f"{path} is damaged: its tensors are not those of its model card")
    model.load_state_dict(state)
    return model.eval(), card


def require_same_classes(model: Sequence[str], data: Sequence[str]) -> None:
    """Check that the labels of the model are those of the data.

    Args:
        model: the class names of `models/model.safetensors` in label order, background first.
        data: the class names of `data/classes.json`, without the background.

    Raises:
        UserError: a class or its label differs.
    """
    if list(model[1:]) != list(data):
        raise UserError(
            f"models/model.safetensors has the classes {', '.join(model[1:])}, but "
            f"data/classes.json has {', '.join(data)}: rerun `dvc repro train`, or score it by "
            "class names with `cocoseg evaluate models/model.safetensors`"
        )
