"""Smaller copies of the float32 ONNX file, with the same inputs, output and card.

write_float16(Path("float32.onnx"), Path("float16.onnx"))
in_float = write_int8(Path("float32.onnx"), Path("int8.onnx"), pairs, max_loss=0.01, threads=1)

float16 halves the file; a CPU computes in float32 all the same. int8 is static quantisation by ONNX
Runtime's own tools: weights by output channel, activations by their range on training photos
(Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, section 3).
"""

import copy
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QDQQuantizer,
    QuantType,
    create_calibrator,
)
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.core.seeding import sort_key
from cocoseg.export.onnx import Agreement
from cocoseg.inference.backends import Network, load_onnx
from cocoseg.inference.confusion import count_confusion, mean_iou
from cocoseg.inference.dataset import Sample, WholeImages

logger = logging.getLogger(__name__)

_OPERATIONS = ["Conv", "Add", "Mul", "Relu", "Sigmoid", "GlobalAveragePool", "Concat"]
"""What the tools quantise. Resizing takes longer in 8 bits than in float."""

_GATES = ["HardSwish", "HardSigmoid"]
"""What they cannot, and becomes some of these operations."""

_CHANNELS = 16
"""Of which a multiple goes through a depthwise convolution of 8 bits quickly."""

_FRACTION_OF_LOSS = 0.5
"""Of the loss that is allowed on the test images, that on the photos of calibration."""

_RANKED_BY = 16
"""Photos by which the parts are put in order."""

_FRACTION_OF_WEIGHTS = 0.01
"""Of all weights, those that may stay in float: they take four times the space."""


def write_float16(source: Path, path: Path) -> None:
    """Copy the float32 file `source` with weights in half precision; logits stay float32."""
    model = onnx.load(source)
    # The enlargement of the logits: in half precision, more classes would be equal.
    last = next(node.name for node in model.graph.node if "logits" in node.output)
    with _quiet():
        model = convert_float_to_float16(model, keep_io_types=True, node_block_list=[last])
    _save(model, path)


def write_int8(
    source: Path, path: Path, samples: Sequence[Sample], *, max_loss: float, threads: int
) -> list[str]:
    """Copy the float32 file `source` quantised to 8 bits; returns the parts left in float.

    The ranges of activations come from `pairs`, of which there is at least one. The first part of
    the network stays in float: on three channels, 8 bits are slower. Of the others, those that err
    most follow until the mean IoU on `pairs` is at most half of `max_loss` below that of `source`.
    If it never is with 99% of the weights in 8 bits, the best of what was tried is taken.
    """
    with tempfile.TemporaryDirectory() as directory, _quiet():
        model = _Quantization(source, Path(directory), samples, threads)
        in_float = model.choose(max_loss * _FRACTION_OF_LOSS)
        _save(model.quantize(in_float), path)
    return in_float


def drop_lossy(
    directory: Path, results: Mapping[str, Agreement], max_loss: Mapping[str, float], final: Path
) -> dict[str, dict[str, Any]]:
    """Remove the files `NAME.onnx` that lose more than they may; returns the figures of all.

    A warning names each, and by how much, under the folder `final` where the others will be.
    """
    figures = {}
    for name, result in results.items():
        path = directory / f"{name}.onnx"
        written = result.loss <= max_loss[name]
        figures[name] = {"written": written, "bytes": path.stat().st_size, **asdict(result)}
        if not written:
            path.unlink()
            logger.warning(
                "%s is not written: its mean IoU on the test images is %.4f below PyTorch's, "
                "%.4f more than export.max_loss.%s allows",
                final / path.name,
                result.loss,
                result.loss - max_loss[name],
                name,
            )
    return figures


def choose_calibration(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` pairs, whatever their order: always the same of the same names.

    Raises UserError where there is none.
    """
    if not samples:
        raise UserError(
            "int8 wants photos of the train split, which is empty: drop it from export.variants"
        )
    return sorted(samples, key=lambda sample: sort_key(0, "calibrate", sample.mask.stem))[:count]


class _Quantization:
    """A float32 file, its quantised copies, and what they make of some photos."""

    def __init__(
        self, source: Path, directory: Path, samples: Sequence[Sample], threads: int
    ) -> None:
        network = load_onnx(source, threads=threads)
        card = network.card
        self._classes = len(card.classes)
        photos = WholeImages(samples, card.size)
        self._photos = [
            photos[index] for index in range(len(samples))
        ]  # decoded once for all copies
        self._directory = directory
        self._threads = threads
        self._model = onnx.shape_inference.infer_shapes(_with_wide_depthwise(onnx.load(source)))
        sizes = {tensor.name: math.prod(tensor.dims) for tensor in self._model.graph.initializer}
        self._weights: dict[str, int] = {}
        for node in self._model.graph.node:
            if node.op_type == "Conv":
                layer = _layer(node)
                self._weights[layer] = self._weights.get(layer, 0) + sizes[node.input[1]]
        self._labels, self._miou = self._evaluate(network)
        self._ranges = self._calibrate()

    def choose(self, max_loss: float) -> list[str]:
        """The parts that stay in float, in the order of the network."""
        first, *others = self._weights
        chosen = [first]

        def is_too_much(layers: Sequence[str]) -> bool:
            weights = sum(self._weights[layer] for layer in layers)
            return weights > _FRACTION_OF_WEIGHTS * sum(self._weights.values())

        def loss(layers: Sequence[str]) -> float:
            return self._miou - self._evaluate(self._load(self.quantize(layers)))[1]

        def wrong(layers: Sequence[str]) -> int:
            labels, _ = self._evaluate(self._load(self.quantize(layers)), _RANKED_BY)
            return sum(int((a != b).sum()) for a, b in zip(labels, self._labels, strict=False))

        best, least = chosen, loss(chosen)
        if least > max_loss:
            candidates = [layer for layer in others if not is_too_much([first, layer])]
            candidates.sort(key=lambda layer: wrong([first, layer]))
            for layer in candidates:
                if is_too_much([*chosen, layer]):
                    continue
                chosen = [*chosen, layer]
                found = loss(chosen)
                if found < least:
                    best, least = chosen, found
                if least <= max_loss:
                    break
        return [layer for layer in self._weights if layer in best]

    def quantize(self, in_float: Sequence[str]) -> ModelProto:
        """A copy in which all but the parts `in_float` computes with integers."""
        quantizer = QDQQuantizer(
            copy.deepcopy(self._model),
            per_channel=True,
            # Weights of 7 bits: with 8, sums of two products overflow on processors without VNNI.
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=copy.deepcopy(self._ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=[n.name for n in self._model.graph.node if _layer(n) in in_float],
            op_types_to_quantize=_OPERATIONS,
            extra_options={},
        )
        quantizer.quantize_model()
        quantized: ModelProto = quantizer.model.model
        del quantized.graph.value_info[:]
        return _with_integer_gates(quantized)

    def _calibrate(self) -> TensorsData:
        """The lowest and highest value of every activation on the photos."""
        path = self._directory / "calibration.onnx"
        _save(self._model, path)
        calibrator = create_calibrator(path, _OPERATIONS, self._directory / "augmented.onnx")
        calibrator.collect_data(_Reader(self._photos))
        ranges = calibrator.compute_data()
        for node in self._model.graph.node:
            if node.op_type in _GATES:
                # From -3, below which the gate is closed, in steps of which a whole number make 3.
                highest = max(np.max(ranges[node.input[0]].range_value[1]), 0)
                step = 3 / np.floor(3 / ((highest + 3) / 255))
                ranges.data[node.input[0]] = TensorData(
                    lowest=np.float32(-3), highest=np.float32(255 * step - 3)
                )
        return ranges

    def _load(self, model: ModelProto) -> Network:
        path = self._directory / "candidate.onnx"
        _save(model, path)
        return load_onnx(path, threads=self._threads)

    def _evaluate(self, network: Network, count: int | None = None) -> tuple[list[Tensor], float]:
        """The labels of every photo, or of the first `count`, and their mean IoU."""
        confusion = np.zeros((self._classes, self._classes), np.int64)
        labels = []
        for image, ground_truth in self._photos[:count]:
            height, width = ground_truth.shape
            found = network(image[None], (height, width))[0].max(dim=0).indices.to(torch.uint8)
            confusion += count_confusion(ground_truth.numpy(), found.numpy(), self._classes)
            labels.append(found)
        return labels, mean_iou(confusion)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Photos, one at a time, as the inputs of the ONNX file."""

    def __init__(self, photos: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._inputs = (
            {"images": image[None].contiguous().numpy(), "size": np.array(ground_truth.shape)}
            for image, ground_truth in photos
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._inputs, None)


def _layer(node: NodeProto) -> str:
    """To which part of the network a node belongs, such as `backbone.4`: the second of its names.

    What stands in no part, such as the normalisation, is its own.
    """
    names = node.name.split("/")[1:]
    return names[1] if len(names) > 2 else node.name


def _with_wide_depthwise(model: ModelProto) -> ModelProto:
    """The model, its depthwise convolutions with a multiple of 16 channels, the further ones zero.

    ONNX Runtime takes up to three times as long for others in 8 bits. What has as many channels in
    the same part of the network gets the same zeros.
    """
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    # The exporter stores equal biases once, and names them by Identity.
    alias = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    groups, widths = {}, {}
    for node in graph.node:
        node.input[:] = [alias[name] if alias.get(name) in values else name for name in node.input]
        if node.op_type == "Conv":
            groups[node.name] = next(a for a in node.attribute if a.name == "group")
            if groups[node.name].i > 1:
                widths[_layer(node)] = groups[node.name].i
    for node in graph.node:
        width = widths.get(_layer(node), 0)
        missing = -width % _CHANNELS
        if node.op_type != "Conv" or not missing:
            continue
        if groups[node.name].i == width:
            groups[node.name].i += missing
        for place, name in enumerate(node.input[1:], start=1):
            array = numpy_helper.to_array(values[name])
            added = [missing * (size == width) for size in array.shape[:2]]
            added += [0] * (array.ndim - len(added))
            wide = np.pad(array, [(0, count) for count in added])
            node.input[place] = _add(graph, f"{node.name}_{place}", wide)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def _with_integer_gates(model: ModelProto) -> ModelProto:
    """The model, its hard-swishes and hard-sigmoids computed from the bytes of their convolution.

    Where a byte q means x = s q - 3, as `_calibrate` sees to, s q / 6 is (x + 3) / 6, hard-sigmoid
    between its limits: the lower is that of bytes, the upper one the highest byte or that of Clip.
    Hard-swish is x times its hard-sigmoid.
    """
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    users = {name: node for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.op_type in _GATES]:
        source = makers[node.input[0]]
        if source.op_type != "DequantizeLinear":  # a part that stays in float
            continue
        code, step = source.input[0], numpy_helper.to_array(values[source.input[1]]).item()
        scale = _add(graph, f"{node.name}/scale", np.float32(step / 6))
        zero = _add(graph, f"{node.name}/zero", np.uint8(0))
        graph.node.remove(node)
        if 6 / step < 254.5:
            limit = _add(graph, f"{node.name}/limit", np.uint8(round(6 / step)))
            limited = f"{node.name}/limited"
            graph.node.append(helper.make_node("Clip", [code, "", limit], [limited], limited))
            code = limited
        if node.op_type == "HardSigmoid":  # its result need not become bytes: it is
            quantize = users[node.output[0]]
            users[quantize.output[0]].input[:] = [code, scale, zero]
            graph.node.remove(quantize)
            continue
        gate = f"{node.name}/gate"
        graph.node.extend(
            [
                helper.make_node("DequantizeLinear", [code, scale, zero], [gate], gate),
                helper.make_node("Mul", [node.input[0], gate], node.output, f"{node.name}/Mul"),
            ]
        )
    return model


def _add(graph: GraphProto, name: str, array: NDArray[Any] | np.generic) -> str:
    """Add a constant; returns its name."""
    graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return name


def _save(model: ModelProto, path: Path) -> None:
    model.producer_name, model.producer_version = "cocoseg", ""
    with atomic_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the tools say to their developers, on the root logger and as warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)
