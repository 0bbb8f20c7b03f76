"""Smaller copies of the float32 ONNX file, with the same inputs, output and model card.

write_float16(Path("float32.onnx"), Path("float16.onnx"))
in_float = write_int8(Path("float32.onnx"), Path("int8.onnx"), samples, max_loss=0.01, threads=1)

float16 halves the size of the file; CPUs still compute in float32. int8 is static quantization with
the tools of ONNX Runtime: weights per output channel, activations by their range on training images
(Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, section 3).
"""

import copy
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
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
from cocoseg.core.progress import show_progress
from cocoseg.core.seeding import sort_key
from cocoseg.export.onnx import Agreement, ExportImages, save_onnx
from cocoseg.inference.backends import Network, OnnxNetwork, open_onnx
from cocoseg.inference.confusion import count_confusion, mean_of_defined_ious
from cocoseg.inference.dataset import Sample

logger = logging.getLogger(__name__)

_OPERATIONS = ["Conv", "Add", "Mul", "Relu", "Sigmoid", "GlobalAveragePool", "Concat"]
"""The quantized operations. Resize is not one of them: it is slower in 8 bits than in float32."""

_GATES = ["HardSwish", "HardSigmoid"]
"""Operations that the tools cannot quantize; `_with_integer_gates` replaces them."""

_CHANNELS = 16
"""Depthwise convolutions in 8 bits are fast if their channels are a multiple of this number."""

_FRACTION_OF_LOSS = 0.5
"""The loss allowed on the calibration images, as a fraction of that allowed on the test images."""

_RANKED_BY = 16
"""The number of images by which layers are ranked."""

_FRACTION_OF_WEIGHTS = 0.01
"""The fraction of weights allowed in layers in float32, which take four times the space."""


def write_float16(source: Path, path: Path) -> None:
    """Copy the float32 file `source` with weights in half precision; logits stay float32."""
    model = onnx.load(source)
    # The converter rounds every result to half precision, in which more logits would be equal.
    # Therefore the upsampling of the logits is not converted.
    upsampling = next(node for node in model.graph.node if "logits" in node.output)
    logits = model.graph.output.pop()
    model.graph.node.remove(upsampling)
    coarse = helper.make_tensor_value_info(upsampling.input[0], TensorProto.FLOAT, None)
    model.graph.output.append(coarse)
    with _quiet():
        model = convert_float_to_float16(model, keep_io_types=True)
    model.graph.node.append(upsampling)
    model.graph.output[0].CopyFrom(logits)
    save_onnx(model, path)


def write_int8(
    source: Path, path: Path, images: ExportImages, *, max_loss: float, threads: int
) -> list[str]:
    """Write an int8 copy of a float32 file.

    Layers return to float32, those with the largest errors first, until the mean IoU on `images`
    is at most half of `max_loss` below that of `source`. If this requires more than 1% of the
    weights, the best combination tried is used.

    Args:
        source: the float32 file.
        path: the file to write.
        images: images and ground truth for calibration; at least one.
        max_loss: the mean IoU that may be lost on the test images.
        threads: the number of CPU threads.

    Returns:
        The layers in float32, in the order of the network.

    Raises:
        UserError: ONNX Runtime fails to run the network in 8 bits.
    """
    with tempfile.TemporaryDirectory() as directory, _quiet():
        model = _Quantization(source, Path(directory), images, threads)
        limit = max_loss * _FRACTION_OF_LOSS
        try:
            in_float = choose_float_layers(model.weights, model.loss, model.errors, limit)
        except Fail:
            raise UserError(
                "export.variants: ONNX Runtime cannot compute this network in 8 bits; remove int8"
            ) from None
        save_onnx(model.quantize(in_float), path)
    return in_float


def choose_float_layers(
    weights: Mapping[str, int],
    loss: Callable[[Sequence[str]], float],
    errors: Callable[[Sequence[str]], int],
    max_loss: float,
) -> list[str]:
    """Choose layers in float32, if any, until the loss is small enough.

    Args:
        weights: the number of weights of each layer, in the order of the network.
        loss: computes the loss with the given layers in float32.
        errors: computes the number of wrong pixels likewise. It ranks the layers.
        max_loss: the loss that is small enough.
    """

    def too_large(layers: Sequence[str]) -> bool:
        total = sum(weights[layer] for layer in layers)
        return total > _FRACTION_OF_WEIGHTS * sum(weights.values())

    best: list[str] = []
    chosen: list[str] = []
    least = loss(chosen)
    if least > max_loss:
        candidates = [layer for layer in weights if not too_large([layer])]
        ranked = show_progress(candidates, "int8: ranking layers", unit="layers")
        wrong = {layer: errors([layer]) for layer in ranked}
        candidates.sort(key=wrong.__getitem__)
        for layer in show_progress(candidates, "int8: layers back to float32", unit="layers"):
            if too_large([*chosen, layer]):
                continue
            chosen = [*chosen, layer]
            found = loss(chosen)
            if found < least:
                best, least = chosen, found
            if least <= max_loss:
                break
    return [layer for layer in weights if layer in best]


class Variant(TypedDict):
    """The entry of an ONNX file in `metrics/export.json`.

    Attributes:
        written: whether the file is kept.
        bytes: the size of the file.
        in_float: the layers of int8 that are in float32.

    The other attributes are those of `Agreement`.
    """

    written: bool
    bytes: int
    agreement: float
    miou: float
    loss: float
    largest_score_difference: float
    in_float: NotRequired[list[str]]


def drop_lossy(
    directory: Path, results: Mapping[str, Agreement], max_loss: Mapping[str, float], final: Path
) -> dict[str, Variant]:
    """Remove the files `NAME.onnx` that lose too much mean IoU, with a warning.

    Args:
        directory: the directory of the files.
        results: the agreement of each file with PyTorch, by name.
        max_loss: the allowed loss of mean IoU, by name.
        final: the final directory of the files, for the warning.

    Returns:
        The entry of each file in `metrics/export.json`, by name.
    """
    variants: dict[str, Variant] = {}
    for name, result in results.items():
        path = directory / f"{name}.onnx"
        written = result.loss <= max_loss[name]
        variants[name] = {
            "written": written,
            "bytes": path.stat().st_size,
            "agreement": result.agreement,
            "miou": result.miou,
            "loss": result.loss,
            "largest_score_difference": result.largest_score_difference,
        }
        if not written:
            path.unlink()
            logger.warning(
                "%s not written: it loses %.4f of mean IoU on the test images, %.4f more than "
                "export.max_loss.%s allows",
                final / path.name,
                result.loss,
                result.loss - max_loss[name],
                name,
            )
    return variants


def choose_calibration(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Choose at most `count` samples by a hash of their names.

    Raises:
        UserError: `samples` is empty.
    """
    if not samples:
        raise UserError(
            "export.variants: int8 calibration requires training images, but the train split is "
            "empty; remove int8"
        )
    return sorted(samples, key=lambda sample: sort_key(0, "calibrate", sample.mask.stem))[:count]


class _Quantization:
    """A float32 file and its quantized copies, evaluated on the calibration images."""

    def __init__(self, source: Path, directory: Path, images: ExportImages, threads: int) -> None:
        network = open_onnx(source, threads=threads)
        self._classes = len(network.card.classes)
        self._images = [images[index] for index in range(len(images.samples))]
        self._directory = directory
        self._threads = threads
        self._model = onnx.shape_inference.infer_shapes(_with_wide_depthwise(onnx.load(source)))
        sizes = {tensor.name: math.prod(tensor.dims) for tensor in self._model.graph.initializer}
        self.weights: dict[str, int] = {}
        for node in self._model.graph.node:
            if node.op_type == "Conv":
                layer = _layer(node)
                self.weights[layer] = self.weights.get(layer, 0) + sizes[node.input[1]]
        self._labels, self._miou = self._evaluate(network)
        self._ranges = self._calibrate(network)

    def loss(self, in_float: Sequence[str]) -> float:
        """The mean IoU lost by quantizing all layers except `in_float`."""
        return self._miou - self._evaluate(self._load(self.quantize(in_float)))[1]

    def errors(self, in_float: Sequence[str]) -> int:
        """The number of pixels whose label this changes, in a few images."""
        labels, _ = self._evaluate(self._load(self.quantize(in_float)), _RANKED_BY)
        return sum(int((a != b).sum()) for a, b in zip(labels, self._labels, strict=False))

    def quantize(self, in_float: Sequence[str]) -> ModelProto:
        """Quantize all layers except those `in_float`."""
        quantizer = QDQQuantizer(
            copy.deepcopy(self._model),
            per_channel=True,
            # 7-bit weights: with 8 bits, sums of two products overflow on CPUs without VNNI.
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

    def _calibrate(self, network: OnnxNetwork) -> TensorsData:
        """Find the range of every activation on the images."""
        path = self._directory / "calibration.onnx"
        save_onnx(self._model, path)
        calibrator = create_calibrator(path, _OPERATIONS, self._directory / "augmented.onnx")
        calibrator.collect_data(_Reader(network, self._images))
        ranges = calibrator.compute_data()
        for node in self._model.graph.node:
            if node.op_type in _GATES:
                # From -3, below which the gate is 0, in steps that divide 3.
                highest = max(np.max(ranges[node.input[0]].range_value[1]), 0)
                step = 3 / np.floor(3 / ((highest + 3) / 255))
                ranges.data[node.input[0]] = TensorData(
                    lowest=np.float32(-3), highest=np.float32(255 * step - 3)
                )
        return ranges

    def _load(self, model: ModelProto) -> Network:
        path = self._directory / "candidate.onnx"
        save_onnx(model, path)
        return open_onnx(path, threads=self._threads)

    def _evaluate(self, network: Network, count: int | None = None) -> tuple[list[Tensor], float]:
        """Predict all images, or the first `count`: the labels and their mean IoU."""
        confusion = np.zeros((self._classes, self._classes), np.int64)
        labels = []
        for image, ground_truth in show_progress(self._images[:count], "int8: evaluation"):
            height, width = ground_truth.shape
            found = network.labels(image[None], (height, width))[0]
            confusion += count_confusion(ground_truth.numpy(), found.numpy(), self._classes)
            labels.append(found)
        return labels, mean_of_defined_ious(confusion)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Images, one at a time, as inputs of the ONNX file."""

    def __init__(self, network: OnnxNetwork, images: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._inputs = (
            network.feeds(image[None], (labels.shape[0], labels.shape[1]))
            for image, labels in show_progress(images, "int8: calibration")
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._inputs, None)


def _layer(node: NodeProto) -> str:
    """The layer of a node, such as `backbone.4`; a node outside all layers is its own layer."""
    # The encoders of timm have all their layers in a module `model`.
    names = [name for name in node.name.split("/")[1:] if name != "model"]
    return names[1] if len(names) > 2 else node.name


def _with_wide_depthwise(model: ModelProto) -> ModelProto:
    """Pad depthwise convolutions with zeros to a multiple of 16 channels.

    In 8 bits, ONNX Runtime is up to three times slower for other numbers of channels. Convolutions
    in the same layer with the same number of channels are padded alike.
    """
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    # The exporter stores equal biases once and refers to them by Identity nodes.
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
        for index, name in enumerate(node.input[1:], start=1):
            array = numpy_helper.to_array(values[name])
            added = [missing * (size == width) for size in array.shape[:2]]
            added += [0] * (array.ndim - len(added))
            wide = np.pad(array, [(0, count) for count in added])
            node.input[index] = _add(graph, f"{node.name}_{index}", wide)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def _with_integer_gates(model: ModelProto) -> ModelProto:
    """Compute hard-sigmoid and hard-swish from the quantized output of the convolution before them.

    `_calibrate` chooses ranges in which a byte q represents x = s q - 3. Within its limits, the
    hard-sigmoid of x is therefore (x + 3) / 6 = s q / 6. The lower limit is byte 0; the upper limit
    is byte 255 or a Clip. The hard-swish is x times its hard-sigmoid.
    """
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    users = {name: node for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.op_type in _GATES]:
        source = makers[node.input[0]]
        if source.op_type != "DequantizeLinear":  # a layer in float32
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
        if node.op_type == "HardSigmoid":  # the result is quantized already
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
    """Add a constant to the graph and return its name."""
    graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return name


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the tools' warnings and messages on the root logger."""

    def is_severe(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    logging.root.addFilter(is_severe)  # of this logger only: ours still report progress
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.root.removeFilter(is_severe)
