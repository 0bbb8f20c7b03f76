"""Smaller copies of the float32 ONNX file, with the same inputs, output and model card.

write_float16(Path("float32.onnx"), Path("float16.onnx"))
write_int8(Path("float32.onnx"), Path("int8.onnx"), images, threads=1)

float16 halves the size of the file; CPUs still compute in float32. int8 is static quantization with
the tools of ONNX Runtime: weights per output channel, activations by their range on training images
(Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, section 3).
"""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

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

from cocoseg.core.errors import UserError
from cocoseg.core.progress import show_progress
from cocoseg.core.seeding import sort_key
from cocoseg.export.onnx import Agreement, ExportImages, save_onnx
from cocoseg.inference.backends import OnnxNetwork, open_onnx
from cocoseg.inference.dataset import Sample

logger = logging.getLogger(__name__)

_OPERATIONS = ["Conv", "Add", "Mul", "Relu", "Sigmoid", "GlobalAveragePool", "Concat"]
"""The quantized operations. Resize is not one of them: it is slower in 8 bits than in float32."""

_GATES = ["HardSwish", "HardSigmoid"]
"""Operations that the tools cannot quantize; `_with_integer_gates` replaces them."""

_CHANNELS = 16
"""Depthwise convolutions in 8 bits are fast if their channels are a multiple of this number."""


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


def write_int8(source: Path, path: Path, images: ExportImages, *, threads: int) -> None:
    """Write an int8 copy of a float32 file.

    Args:
        source: the float32 file.
        path: the file to write.
        images: images for calibration; at least one.
        threads: the number of CPU threads.

    Raises:
        UserError: ONNX Runtime fails to run the network in 8 bits.
    """
    model = onnx.shape_inference.infer_shapes(_with_wide_depthwise(onnx.load(source)))
    with tempfile.TemporaryDirectory() as directory, _quiet():
        ranges = _calibrate(model, source, images, Path(directory), threads)
        int8 = Path(directory, path.name)
        save_onnx(_quantize(model, ranges), int8)
        image, labels = images[0]
        try:
            open_onnx(int8, threads=threads).labels(image[None], (labels.shape[0], labels.shape[1]))
        except Fail:
            raise UserError(
                "export.variants: ONNX Runtime cannot compute this network in 8 bits; remove int8"
            ) from None
        shutil.move(int8, path)


class Variant(TypedDict):
    """The entry of an ONNX file in `metrics/export.json`.

    Attributes:
        written: whether the file is kept.
        bytes: the size of the file.

    The other attributes are those of `Agreement`.
    """

    written: bool
    bytes: int
    agreement: float
    miou: float
    loss: float
    largest_score_difference: float


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


def _calibrate(
    model: ModelProto, source: Path, images: ExportImages, directory: Path, threads: int
) -> TensorsData:
    """Find the range of every activation on the images."""
    path = directory / "calibration.onnx"
    save_onnx(model, path)
    calibrator = create_calibrator(path, _OPERATIONS, directory / "augmented.onnx")
    calibrator.collect_data(_Reader(open_onnx(source, threads=threads), images))
    ranges = calibrator.compute_data()
    for node in model.graph.node:
        if node.op_type in _GATES:
            # From -3, below which the gate is 0, in steps that divide 3.
            highest = max(np.max(ranges[node.input[0]].range_value[1]), 0)
            step = 3 / np.floor(3 / ((highest + 3) / 255))
            ranges.data[node.input[0]] = TensorData(
                lowest=np.float32(-3), highest=np.float32(255 * step - 3)
            )
    return ranges


def _quantize(model: ModelProto, ranges: TensorsData) -> ModelProto:
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        # 7-bit weights: with 8 bits, sums of two products overflow on CPUs without VNNI.
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=_OPERATIONS,
        extra_options={},
    )
    quantizer.quantize_model()
    quantized: ModelProto = quantizer.model.model
    del quantized.graph.value_info[:]
    return _with_integer_gates(quantized)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Images, one at a time, as inputs of the ONNX file."""

    def __init__(self, network: OnnxNetwork, images: ExportImages) -> None:
        indices = show_progress(range(len(images)), "int8: calibration")
        self._inputs = (
            network.feeds(image[None], (labels.shape[0], labels.shape[1]))
            for image, labels in map(images.__getitem__, indices)
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
