"""The model as an ONNX file that explains itself, and the proof that it does what PyTorch does.

The graph holds all but reading a photo and resizing it so that its shorter side has the card's
`size` pixels (bilinear, antialiased):

    images   uint8 (batch, 3, height, width)   RGB, 0 to 255, every dimension but the 3 is free
    size     int64 (2,)                        (H, W) wanted of the logits: the photo's own
    logits   float32 (batch, classes, H, W)    a pixel's label is the argmax over the classes

Normalisation and the bilinear enlargement of the logits are inside. The metadata entry `cocoseg` is
the ModelCard as JSON: class names in label order, architecture, size, mean and std.

write_onnx(Path("models/onnx/float32.onnx"), model, card, opset=18)
network = load_onnx(Path("models/onnx/float32.onnx"))
logits = network(images, (480, 640))
"""

import copy
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.lraspp import LRASPPHead

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.inference.backends import Network
from cocoseg.inference.batches import batches_of_equal_size
from cocoseg.inference.confusion import Confusion, count_confusion, iou_scores, mean_iou
from cocoseg.inference.dataset import Sample, WholeImages
from cocoseg.models.heads import DilatedConv2d, LiteHead
from cocoseg.models.networks import ModelCard, SegmentationNetwork

MIN_AGREEMENT = 0.999
"""Of float32: the least share of pixels with PyTorch's label."""


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
        normalized = (images.float() - self.shift) / self.scale
        # Traced, the two elements of `size` become the graph's input, not constants.
        return super().forward(normalized, (size[0], size[1]))["out"]  # type: ignore[arg-type]


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
    samples: Sequence[Sample],
    batch_size: int,
) -> dict[str, Agreement]:
    """Label and score every pair with all networks, at its original resolution.

    Raises UserError without pairs, since nothing would be proven.
    """
    if not samples:
        raise UserError("split.ratios.test: the split has no images, the export cannot be checked")
    classes = len(first.card.classes)
    photos = WholeImages(samples, first.card.size)
    confusions: list[Confusion] = [np.zeros((classes, classes), np.int64) for _ in (first, *others)]
    equal, pixels = [0 for _ in others], 0
    for indices in batches_of_equal_size(samples, batch_size):
        images, ground_truths = map(
            torch.stack, zip(*(photos[index] for index in indices), strict=True)
        )
        height, width = ground_truths.shape[-2:]
        labels = [
            network(images, (height, width)).max(dim=1).indices
            for network in (first, *others.values())
        ]
        for place, other in enumerate(labels[1:]):
            equal[place] += int((labels[0] == other).sum())
        pixels += ground_truths.numel()
        for total, prediction in zip(confusions, labels, strict=True):
            total += count_confusion(ground_truths.numpy(), prediction.numpy(), classes)
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
