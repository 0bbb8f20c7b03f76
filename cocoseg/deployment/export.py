"""The model as an ONNX file that explains itself, and the proof that it does what PyTorch does.

The graph holds all but reading a photo and resizing it so that its shorter side has the card's
`size` pixels (bilinear, antialiased):

    images   uint8 (batch, 3, height, width)   RGB, 0 to 255, every dimension but the 3 is free
    size     int64 (2,)                        (H, W) wanted of the logits: the photo's own
    logits   float32 (batch, classes, H, W)    a pixel's label is the argmax over the classes

Normalisation and the bilinear enlargement of the logits are inside. The metadata entry `cocoseg` is
the ModelCard as JSON: class names in label order, architecture, size, mean and std.

write_onnx(Path("models/onnx/float32.onnx"), model, card, opset=18)
network, card = load_onnx(Path("models/onnx/float32.onnx"))
logits = network(images, (480, 640))
"""

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.lraspp import LRASPPHead

from cocoseg.common.errors import UserError
from cocoseg.common.files import atomic_file
from cocoseg.network.confusion import Confusion, count_confusion, iou_scores, mean_iou
from cocoseg.network.heads import DilatedConv2d, LiteHead
from cocoseg.network.inference import normalize
from cocoseg.network.model import ModelCard, SegmentationNetwork, fold_batch_norms
from cocoseg.network.photos import Pair, WholePhotos, batches_of_equal_size

Network = Callable[[Tensor, tuple[int, int]], Tensor]
"""From uint8 RGB photos (B, 3, h, w), resized for the network, and the (H, W) that is wanted to
logits float32 (B, classes, H, W), whatever computes them."""

MIN_AGREEMENT = 0.999
"""Of float32: the least share of pixels with PyTorch's label."""


def torch_network(model: SegmentationNetwork, card: ModelCard, device: torch.device) -> Network:
    """The model on `device` as a Network; the logits stay on the device."""
    network = fold_batch_norms(model).to(device)

    def run(images: Tensor, size: tuple[int, int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = network(normalize(images.to(device), card), size)["out"]
        return logits

    return run


def write_onnx(path: Path, model: SegmentationNetwork, card: ModelCard, opset: int) -> None:
    """Write the model as ONNX of an opset from 13 to 20: the same weights give the same bytes."""
    images = torch.zeros(2, 3, 96, 128, dtype=torch.uint8)
    with atomic_file(path) as temporary:
        # The exporter by tracing, not `dynamo=True`: the graph is as dynamic and smaller, made in
        # 2 s instead of 15 s, and no further package is needed.
        with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
            torch.onnx.export(
                _Graph(model, card).eval(),
                (images, torch.tensor([192, 256])),
                temporary,
                dynamo=False,
                opset_version=opset,
                input_names=["images", "size"],
                output_names=["logits"],
                dynamic_axes={
                    "images": {0: "batch", 2: "height", 3: "width"},
                    "logits": {0: "batch", 2: "logits_height", 3: "logits_width"},
                },
            )
        proto = onnx.load(temporary)
        proto.producer_name, proto.producer_version = "cocoseg", ""
        for node in proto.graph.node:
            node.ClearField("doc_string")
        onnx.helper.set_model_props(proto, {"cocoseg": msgspec.json.encode(card).decode()})
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


class _Graph(SegmentationNetwork):
    """What the ONNX file computes, in operations whose sizes follow the input's.

    The model's own shortcuts depend on the sizes: convolutions without the taps that see padding,
    resizing as products with constant matrices. Here are the plain forms, of equal result.
    """

    def __init__(self, model: SegmentationNetwork, card: ModelCard) -> None:
        model = copy.deepcopy(model).cpu()
        for module in model.modules():
            if isinstance(module, DilatedConv2d):
                module.__class__ = nn.Conv2d  # type: ignore[assignment]
            elif isinstance(module, LiteHead):
                module.__class__ = _LiteHead
        super().__init__(model.backbone, model.classifier)
        self.shift = nn.Buffer(torch.tensor(card.mean).view(1, 3, 1, 1) * 255)
        self.scale = nn.Buffer(torch.tensor(card.std).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor, size: Tensor) -> Tensor:  # type: ignore[override]
        normalised = (images.float() - self.shift) / self.scale
        # Traced, the two elements of `size` become the graph's input, not constants.
        return super().forward(normalised, (size[0], size[1]))["out"]  # type: ignore[arg-type]


class _LiteHead(LRASPPHead):  # type: ignore[misc]
    """Lite R-ASPP's head, which enlarges the logits instead of their many more features.

    Bilinear weights add up to 1, so that a 1x1 convolution may come before or after.
    """

    def forward(self, input: dict[str, Tensor]) -> Tensor:
        low, high = input["low"], input["high"]
        logits = self.high_classifier(self.cbr(high) * self.scale(high))
        logits = functional.interpolate(logits, low.shape[-2:], mode="bilinear")
        result: Tensor = self.low_classifier(low) + logits
        return result


def load_onnx(path: Path, device: str = "cpu", threads: int = 0) -> tuple[Network, ModelCard]:
    """Read what `write_onnx` wrote. `threads` 0 takes all cores; the logits come to the CPU.

    `device` is auto, cpu, cuda or cuda:N. Raises UserError when the file is missing, damaged or not
    from this project, or the device is not there.
    """
    if not path.is_file():
        raise UserError(f"{path} not found: `dvc repro export` makes it, `dvc pull` fetches it")
    providers = _providers(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are for its developers
    # Threads that wait in a busy loop take the processor from other networks of this process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise UserError(f"{path} is no ONNX file, or damaged: {error}") from None
    metadata = session.get_modelmeta().custom_metadata_map
    if "cocoseg" not in metadata:
        raise UserError(f"{path} has no cocoseg metadata: it was not written by the export stage")

    def run(images: Tensor, size: tuple[int, int]) -> Tensor:
        inputs = {"images": images.contiguous().numpy(), "size": np.array(size)}
        (logits,) = session.run(["logits"], inputs)
        return torch.from_numpy(logits)

    return run, msgspec.json.decode(metadata["cocoseg"], type=ModelCard)


def _providers(device: str) -> list[str | tuple[str, dict[str, int]]]:
    gpu = "CUDAExecutionProvider"
    has_gpu = gpu in onnxruntime.get_available_providers()
    kind, _, number = device.partition(":")
    if kind == "cpu" or (kind == "auto" and not has_gpu):
        return ["CPUExecutionProvider"]
    if kind in ("auto", "cuda") and has_gpu:
        return [(gpu, {"device_id": int(number or 0)}), "CPUExecutionProvider"]
    raise UserError(
        f"{device} is not available to ONNX models here: use cpu, or install onnxruntime-gpu"
    )


@dataclass(frozen=True)
class Agreement:
    """How closely a second network follows a first one.

    `agreement` is the share of all pixels with the same label; `miou` is the second network's, and
    `loss` how much lower it is than the first one's; `largest_score_difference` is that of the mean
    IoU and the IoU of every class.
    """

    agreement: float
    miou: float
    loss: float
    largest_score_difference: float


def compare_networks(
    first: Network,
    others: Mapping[str, Network],
    card: ModelCard,
    pairs: Sequence[Pair],
    batch_size: int,
) -> dict[str, Agreement]:
    """Label and score every pair with all networks, at its original resolution.

    Raises UserError without pairs, since nothing would be proven.
    """
    if not pairs:
        raise UserError("split.ratios.test: the split has no images, the export cannot be checked")
    classes = len(card.classes)
    photos = WholePhotos(pairs, card.size)
    confusions: list[Confusion] = [np.zeros((classes, classes), np.int64) for _ in (first, *others)]
    equal, pixels = [0 for _ in others], 0
    for indices in batches_of_equal_size(pairs, batch_size):
        images, truths = map(torch.stack, zip(*(photos[index] for index in indices), strict=True))
        height, width = truths.shape[-2:]
        labels = [
            network(images, (height, width)).max(dim=1).indices
            for network in (first, *others.values())
        ]
        for place, other in enumerate(labels[1:]):
            equal[place] += int((labels[0] == other).sum())
        pixels += truths.numel()
        for total, prediction in zip(confusions, labels, strict=True):
            total += count_confusion(truths.numpy(), prediction.numpy(), classes)
    expected, *found = (np.append(iou_scores(total), mean_iou(total)) for total in confusions)
    return {
        name: Agreement(
            agreement=round(same / pixels, 6),
            miou=round(float(scores[-1]), 6),
            loss=round(float(expected[-1] - scores[-1]), 6),
            largest_score_difference=round(
                float(np.abs(np.nan_to_num(expected) - np.nan_to_num(scores)).max()), 6
            ),
        )
        for name, same, scores in zip(others, equal, found, strict=True)
    }


def require_agreement(result: Agreement, path: Path, max_difference: float) -> None:
    """Raise UserError where two networks differ by more than rounding explains."""
    if result.agreement < MIN_AGREEMENT or result.largest_score_difference > max_difference:
        raise UserError(
            f"{path} is not written, for it would not do what the model does: "
            f"{result.agreement:.2%} of pixels get the same label (at least {MIN_AGREEMENT:.1%} "
            f"must), scores differ by up to {result.largest_score_difference:.4f} "
            f"(export.max_loss.float32: {max_difference:g}); try another export.opset"
        )


def median_latency(
    networks: Mapping[str, Network], images: Tensor, size: tuple[int, int], repeats: int = 20
) -> dict[str, float]:
    """Median milliseconds of each network for `images`, taken in turns so that noise hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for repeat in range(-2, repeats):
        for name, network in networks.items():
            started = time.perf_counter()
            network(images, size)
            if repeat >= 0:  # the first calls prepare memory and kernels
                seconds[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(taken) * 1000, 2) for name, taken in seconds.items()}
