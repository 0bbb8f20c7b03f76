"""Labels computed inside an ONNX file.

The logits of a large image need gigabytes: 12 megapixels and 121 classes take 5.8 GB. A file with
the output `labels` computes the logits of one row at a time instead. With a fixed size, where the
logits are small, it uses operations that every runtime has.

add_labels(Path("models/onnx/float32.onnx"), keep_logits=False)
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper, parser

from cocoseg.export.onnx import save_onnx

_OF_LOGITS = """
labels (float[batch, classes, output_height, output_width] logits)
    => (uint8[batch, output_height, output_width] labels)
{
    best = ArgMax<axis = 1, keepdims = 0>(logits)
    labels = Cast<to = 2>(best)
}
"""

# Bilinear upsampling is separable: the columns of all rows first, then one row after the other.
# Output row y is between the rows floor(s) and floor(s) + 1 of the coarse logits, where
# s = (y + 0.5) * inputs / outputs - 0.5. ONNX's reference implementation concatenates the rows of a
# loop where the specification stacks them; the Reshape is correct for both.
_BY_ROW = """
labels (float[batch, classes, coarse_height, coarse_width] coarse, int64[2] size)
    => (uint8[batch, output_height, output_width] labels)
<
    int64 first = {0}, int64 one = {1}, int64 rows_axis = {2}, float half = {0.5}, float zero = {0},
    int64[1] start = {0}, int64[1] width_index = {1}, int64[1] end = {2}, int64[1] width_axis = {3},
    bool true = {1}
>
{
    shape = Shape(coarse)
    kept = Slice(shape, start, width_axis)
    width = Slice(size, width_index, end)
    wide_shape = Concat<axis = 0>(kept, width)
    wide = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">
        (coarse, , , wide_shape)

    inputs = Gather(shape, rows_axis)
    outputs = Gather(size, first)
    inputs_float = Cast<to = 1>(inputs)
    outputs_float = Cast<to = 1>(outputs)
    step = Div(inputs_float, outputs_float)
    rows = Range(first, outputs, one)
    rows_float = Cast<to = 1>(rows)
    centers = Add(rows_float, half)
    scaled = Mul(centers, step)
    shifted = Sub(scaled, half)
    source = Max(shifted, zero)
    floor = Floor(source)
    fractions = Sub(source, floor)
    uppers = Cast<to = 7>(floor)
    next = Add(uppers, one)
    last = Sub(inputs, one)
    lowers = Min(next, last)

    stacked = Loop(outputs, true) <body = row (int64 index, bool go)
        => (bool go_on, uint8[batch, output_width] row_labels)
    {
        go_on = Identity(go)
        upper_index = Gather(uppers, index)
        lower_index = Gather(lowers, index)
        fraction = Gather(fractions, index)
        upper = Gather<axis = 2>(wide, upper_index)
        lower = Gather<axis = 2>(wide, lower_index)
        difference = Sub(lower, upper)
        part = Mul(difference, fraction)
        row_logits = Add(upper, part)
        best = ArgMax<axis = 1, keepdims = 0>(row_logits)
        row_labels = Cast<to = 2>(best)
    }>
    height = Slice(size, start, width_index)
    batch = Slice(shape, start, width_index)
    stacked_shape = Concat<axis = 0>(height, batch, width)
    by_row = Reshape(stacked, stacked_shape)
    labels = Transpose<perm = [1, 0, 2]>(by_row)
}
"""


def add_labels(path: Path, *, keep_logits: bool) -> None:
    """Add the output `labels`, uint8 (batch, H, W), to a file of `write_onnx` or a variant.

    Args:
        path: a file with the output `logits`; it is replaced.
        keep_logits: whether `logits` remains an output.
    """
    model = onnx.load(path)
    graph = model.graph
    (logits,) = graph.output
    if len(graph.input) == 1:
        tail = parser.parse_graph(_OF_LOGITS)
    else:
        tail = parser.parse_graph(_BY_ROW)
        resize = next(node for node in graph.node if "logits" in node.output)
        graph.node.append(helper.make_node("Identity", resize.input[:1], ["coarse"]))
    graph.node.extend(tail.node)
    graph.initializer.extend(tail.initializer)
    labels = onnx.ValueInfoProto()
    labels.CopyFrom(logits)
    labels.name, labels.type.tensor_type.elem_type = "labels", TensorProto.UINT8
    del labels.type.tensor_type.shape.dim[1]
    if not keep_logits:
        graph.output.remove(logits)
    graph.output.append(labels)
    save_onnx(model, path)
