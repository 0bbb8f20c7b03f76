"""Writing models as self-contained ONNX files, and comparing them with PyTorch.

The inputs and the outputs of the graph:

    images   uint8 (batch, 3, height, width)   RGB, 0 to 255; all dimensions but the 3 are dynamic
    size     int64 (2,)                        the (H, W) of the output: that of the original image
    logits   float32 (batch, classes, H, W)    the label of a pixel is the argmax over the classes
    labels   uint8 (batch, H, W)               added by `cocoseg.export.label_output`

The caller resizes images so that their shorter side has the `size` of the model card (bilinear,
antialiased). The graph includes normalization and the bilinear upsampling of the logits. The
metadata entry `cocoseg` is the ModelCard as JSON. With a fixed size, `images` is the only input:
one image of that size, which is also the size of the output.

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
from onnx import ModelProto
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.lraspp import LRASPPHead
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.core.progress import show_progress
from cocoseg.inference.backends import Network
from cocoseg.inference.batches import batches_of_equal_size
from cocoseg.inference.confusion import Confusion, count_confusion, iou_scores, mean_of_defined_ious
from cocoseg.inference.dataset import Sample, WholeImages
from cocoseg.models.heads import DilatedConv2d, LiteHead
from cocoseg.models.networks import ModelCard, SegmentationNetwork

MIN_AGREEMENT = 0.999
"""The minimum fraction of pixels for which float32 predicts the same label as PyTorch."""


def write_onnx(
    path: Path,
    model: SegmentationNetwork,
    card: ModelCard,
    opset: int,
    fixed_size: list[int] | None = None,
) -> None:
    """Write a model as ONNX; equal weights give equal bytes.

    Args:
        path: the file.
        model: the network; left unchanged.
        card: its metadata.
        opset: the ONNX opset, from 13 to 20.
        fixed_size: the [height, width] of one image and its logits, or None for any sizes.
    """
    height, width = fixed_size or (96, 128)
    images = torch.zeros(1 if fixed_size else 2, 3, height, width, dtype=torch.uint8)
    size = torch.tensor([192, 256])
    dynamic = {
        "images": {0: "batch", 2: "height", 3: "width"},
        "logits": {0: "batch", 2: "output_height", 3: "output_width"},
    }
    with atomic_file(path) as temporary:
        # Tracing instead of `dynamo=True`: the graph is equally dynamic and smaller, the export
        # takes 2 s instead of 15 s, and requires no additional package.
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                _Graph(model, card).eval(),
                (images,) if fixed_size else (images, size),
                temporary,
                dynamo=False,
                opset_version=opset,
                input_names=["images"] if fixed_size else ["images", "size"],
                output_names=["logits"],
                dynamic_axes=None if fixed_size else dynamic,
            )
        proto = onnx.load(temporary)
        for node in proto.graph.node:
            node.ClearField("doc_string")
        classes = proto.graph.output[0].type.tensor_type.shape.dim[1]
        classes.dim_value = len(card.classes)  # unknown to the exporter
        onnx.helper.set_model_props(proto, {"cocoseg": msgspec.json.encode(card).decode()})
        save_onnx(proto, temporary)


def save_onnx(model: ModelProto, path: Path) -> None:
    """Write a valid ONNX file: sorted nodes, no unused ones, no unused initializers.

    Args:
        model: the model; its graph is changed.
        path: the file.
    """
    model.producer_name, model.producer_version = "cocoseg", ""
    graph = OnnxModel(model)
    graph.prune_graph(allow_remove_graph_inputs=False)
    graph.topological_sort()
    with atomic_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


class _Graph(SegmentationNetwork):
    """The network of an ONNX file, in operations that support dynamic sizes.

    The shortcuts of the model depend on the input size: dilated convolutions that skip taps, and
    resizing by constant matrices. This class replaces them by equivalent plain operations.
    """

    def __init__(self, model: SegmentationNetwork, card: ModelCard) -> None:
        model = copy.deepcopy(model).cpu()
        for module in model.modules():
            if isinstance(module, DilatedConv2d):
                module.__class__ = nn.Conv2d  # type: ignore[assignment]
            elif isinstance(module, LiteHead):
                module.__class__ = _LiteHead
        super().__init__(model.backbone, model.classifier, divisor=model.divisor)
        self.shift = nn.Buffer(torch.tensor(card.mean).view(1, 3, 1, 1) * 255)
        self.scale = nn.Buffer(torch.tensor(card.std).view(1, 3, 1, 1) * 255)

    def forward(self, images: Tensor, size: Tensor | None = None) -> Tensor:  # type: ignore[override]
        normalized = (images.float() - self.shift) / self.scale
        # While tracing, the elements of `size` are tensors: they become inputs of the graph.
        output = None if size is None else (size[0], size[1])
        return super().forward(normalized, output)["out"]  # type: ignore[arg-type]


class _LiteHead(LRASPPHead):  # type: ignore[misc]
    """The head of Lite R-ASPP, upsampling logits instead of features, which have more channels.

    The result is the same: bilinear weights add up to 1, so upsampling and a 1x1 convolution
    commute.
    """

    def forward(self, input: dict[str, Tensor]) -> Tensor:
        low, high = input["low"], input["high"]
        logits = self.high_classifier(self.cbr(high) * self.scale(high))
        logits = functional.interpolate(logits, low.shape[-2:], mode="bilinear")
        result: Tensor = self.low_classifier(low) + logits
        return result


@dataclass(frozen=True)
class Agreement:
    """How closely a second network reproduces a first one.

    Attributes:
        agreement: the fraction of pixels for which both predict the same label.
        miou: the mean IoU of the second network.
        loss: the mean IoU of the first network minus that of the second.
        largest_score_difference: the largest absolute difference of the mean IoU and of the IoU of
            any class.
    """

    agreement: float
    miou: float
    loss: float
    largest_score_difference: float


class ExportImages(WholeImages):
    """Images as inputs of an ONNX file, with labels at the size of its output.

    Args:
        samples: images and their ground truth.
        size: the shorter side in pixels to which images are resized.
        fixed_size: the [height, width] to which images and labels are resized instead.
    """

    def __init__(
        self, samples: Sequence[Sample], size: int, fixed_size: list[int] | None = None
    ) -> None:
        super().__init__(samples, size)
        self.fixed_size = fixed_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.fixed_size is None:
            return super().__getitem__(index)
        image, labels = self.samples[index].read()
        nearest = InterpolationMode.NEAREST_EXACT
        return (
            transforms.resize(image, self.fixed_size, antialias=True),
            transforms.resize(labels[None], self.fixed_size, nearest)[0],
        )


def compare_networks(
    first: Network,
    others: Mapping[str, Network],
    images: ExportImages,
    batch_size: int,
) -> dict[str, Agreement]:
    """Compare the predictions of networks with those of a first one.

    Args:
        first: the reference.
        others: the networks to compare with it, by name.
        images: images and their ground truth.
        batch_size: the maximum number of images of one size in a batch.

    Returns:
        The agreement of each of `others` with `first`.

    Raises:
        UserError: `images` is empty.
    """
    if not images.samples:
        raise UserError("split.ratios.test: the split has no images to check the export with")
    classes = len(first.card.classes)
    confusions: list[Confusion] = [np.zeros((classes, classes), np.int64) for _ in (first, *others)]
    equal, pixels = [0 for _ in others], 0
    # A file with a fixed size takes one image.
    batches = batches_of_equal_size(images.samples, batch_size if images.fixed_size is None else 1)
    for indices in show_progress(batches, "comparison with PyTorch", unit="batches"):
        batch, ground_truths = map(
            torch.stack, zip(*(images[index] for index in indices), strict=True)
        )
        height, width = ground_truths.shape[-2:]
        labels = [network.labels(batch, (height, width)) for network in (first, *others.values())]
        for position, other in enumerate(labels[1:]):
            equal[position] += int((labels[0] == other).sum())
        pixels += ground_truths.numel()
        for total, prediction in zip(confusions, labels, strict=True):
            total += count_confusion(ground_truths.numpy(), prediction.numpy(), classes)
    expected, *found = (
        np.append(iou_scores(total), mean_of_defined_ious(total)) for total in confusions
    )
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
    """Check that an ONNX file reproduces PyTorch up to rounding.

    Args:
        result: the agreement of the file with PyTorch.
        path: the final path of the file, for the message.
        max_difference: the limit of `largest_score_difference`.

    Raises:
        UserError: the agreement is too low.
    """
    if result.agreement < MIN_AGREEMENT or result.largest_score_difference > max_difference:
        raise UserError(
            f"{path} not written: it differs from the model: {result.agreement:.2%} of pixels get "
            f"the same label (minimum {MIN_AGREEMENT:.1%}) and scores differ by up to "
            f"{result.largest_score_difference:.4f} (export.max_loss.float32: {max_difference:g}); "
            "try another export.opset"
        )


def median_latency(
    networks: Mapping[str, Network], images: Tensor, size: tuple[int, int], repeats: int = 20
) -> dict[str, float]:
    """Measure networks in turn, so that noise affects all of them.

    Args:
        networks: the networks by name.
        images: uint8 (B, 3, h, w).
        size: the (height, width) of the labels.
        repeats: the number of measurements of each network.

    Returns:
        The median latency of each network in milliseconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for repeat in show_progress(range(-2, repeats), "latency", unit="rounds"):
        for name, network in networks.items():
            started = time.perf_counter()
            network.labels(images, size)
            if repeat >= 0:  # skip the warm-up
                seconds[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(taken) * 1000, 2) for name, taken in seconds.items()}
