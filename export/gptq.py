"""GPTQ: round the weights of matrix products and convolutions to an integer grid so that their errors cancel.

In: a graph and calibration data. Out: the same weights as multiples of one step per output channel.

Rounding to the nearest step is best for each weight alone, but not for the layer's output. The inputs of a layer are
correlated, so rows that are not rounded yet can compensate for the error of a rounded row (E. Frantar et al., "GPTQ",
ICLR 2023, section 3, after B. Hassibi and D. Stork, "Optimal Brain Surgeon", NIPS 1992). A convolution is treated as
the product of its patches with its kernel, a depthwise convolution as one such product per channel.
"""

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .graph import Feeds, drop_unused, run_inside, token_rows

MAX_WEIGHT = {8: 127, 7: 64}  # the largest integer of each grid in onnxruntime's quantiser
SAMPLED_ROWS = 256  # of each batch; a layer needs more rows than it has inputs
SAMPLED_POSITIONS = 64  # of each image, for depthwise convolutions: their products have few inputs
MAX_INPUTS = 2304  # of a layer, 256 channels in a 3 x 3 kernel; larger layers are rounded to the nearest step
DAMPING = 0.001  # of the inputs' mean square, added to each square, so that the matrix can be inverted


def input_factors(model: onnx.ModelProto, feeds: Feeds, exclude: Collection[str] = ()) -> dict[str, np.ndarray]:
    """By layer name: factors (groups, d_in, d_in) by which later rows compensate for the error of earlier ones."""
    constants = {item.name: item for item in model.graph.initializer}
    layers = [
        node
        for node in model.graph.node
        if node.op_type in ("MatMul", "Conv") and node.input[1] in constants and node.name not in exclude
    ]
    layers = [node for node in layers if _can_be_rounded(node, list(constants[node.input[1]].dims))]
    if not layers:
        return {}
    keys = {node.name: _key(node) for node in layers}  # query, key and value have the same input
    readers = {key: next(node for node in layers if keys[node.name] == key) for key in keys.values()}
    squares: dict[Any, np.ndarray] = {}
    generator = np.random.default_rng(0)
    inside = run_inside(model, [node.input[0] for node in readers.values()], feeds)
    for feed, tensors in zip(feeds, inside, strict=True):
        for (key, node), values in zip(readers.items(), tensors, strict=True):
            if node.op_type == "Conv":
                rows = _patches(values, node, list(constants[node.input[1]].dims), generator)
            else:
                rows = _sample(token_rows(values, feed.get("attention_mask")), generator)[None]
            squares[key] = squares.get(key, 0) + rows.transpose(0, 2, 1) @ rows
    factors = {key: _inverse_factors(square) for key, square in squares.items()}
    return {name: factors[key] for name, key in keys.items()}


def rounded_weights(model: onnx.ModelProto, factors: dict[str, np.ndarray], bits: int) -> dict[str, np.ndarray]:
    """By layer name: its weights as multiples of `steps(weight, bits)`, float32, in the layout of the graph."""
    constants = {item.name: item for item in model.graph.initializer}
    rounded = {}
    for node in model.graph.node:
        if node.name in factors:
            weight, factor = numpy_helper.to_array(constants[node.input[1]]), factors[node.name]
            if node.op_type == "Conv":  # (d_out, d_in / groups, kernel height, kernel width)
                grouped = weight.reshape(len(factor), len(weight) // len(factor), -1).transpose(0, 2, 1)
                rounded[node.name] = _rounded(grouped, factor, bits).transpose(0, 2, 1).reshape(weight.shape)
            else:
                rounded[node.name] = _rounded(weight[None], factor, bits)[0]
    return rounded


def with_weights(model: onnx.ModelProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The same graph with other weights, by layer name."""
    model = copy.deepcopy(model)
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.name in weights:
            node.input[1] = rounded_name(node.name)
            weight = np.ascontiguousarray(weights[node.name])
            model.graph.initializer.append(numpy_helper.from_array(weight, node.input[1]))
            if node.op_type == "Conv" and len(node.input) > 2:
                # equal biases share a constant, but need separate scales
                bias, node.input[2] = numpy_helper.to_array(constants[node.input[2]]), f"{node.name}_bias"
                model.graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))
    drop_unused(model)
    return model


def rounded_name(layer: str) -> str:
    """The name of a layer's rounded weights in the graph."""
    return f"{layer}_rounded"


def is_depthwise(shape: list[int], groups: int) -> bool:
    """Whether a convolution with weights of this shape has several groups of one input channel each."""
    return groups > 1 and shape[1] == 1


def steps(weight: np.ndarray, bits: int = 8) -> np.ndarray:
    """(..., d_in, d_out) -> (..., d_out): the step of each output's integers in onnxruntime's quantiser."""
    return np.asarray(np.abs(weight).max(axis=-2) / MAX_WEIGHT[bits] + 1e-12)


def groups_of(node: onnx.NodeProto) -> int:
    """The number of groups of a convolution."""
    return int(_attributes(node).get("group", 1))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _can_be_rounded(node: onnx.NodeProto, shape: list[int]) -> bool:
    if node.op_type == "MatMul":
        return len(shape) == 2
    attributes = _attributes(node)
    if len(shape) != 4 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return False
    if any(dilation != 1 for dilation in attributes.get("dilations", ())):
        return False
    groups = groups_of(node)
    return (groups == 1 or is_depthwise(shape, groups)) and int(np.prod(shape[1:])) <= MAX_INPUTS


def _key(node: onnx.NodeProto) -> tuple[Any, ...]:
    """A key that is equal for layers with the same input rows."""
    attributes = _attributes(node)
    names = ("group", "kernel_shape", "strides", "pads")
    return (node.op_type, node.input[0], *(str(attributes.get(name)) for name in names))


def _patches(values: np.ndarray, node: onnx.NodeProto, shape: list[int], generator: np.random.Generator) -> np.ndarray:
    """(B, C, H, W) -> (groups, n, d_in): the inputs of the kernel at sampled positions."""
    attributes, height, width = _attributes(node), shape[2], shape[3]
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    down, across = attributes.get("strides", (1, 1))
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))[:, :, ::down, ::across]
    batch, channels, rows, columns = windows.shape[:4]
    if groups_of(node) > 1:
        positions = generator.choice(rows * columns, min(SAMPLED_POSITIONS, rows * columns), replace=False)
        patches = windows[:, :, positions // columns, positions % columns]  # (B, C, n, height, width)
        return np.ascontiguousarray(patches.transpose(1, 0, 2, 3, 4).reshape(channels, -1, height * width))
    positions = generator.choice(batch * rows * columns, min(SAMPLED_ROWS, batch * rows * columns), replace=False)
    image, position = positions // (rows * columns), positions % (rows * columns)
    patches = windows[image, :, position // columns, position % columns]  # (n, C, height, width)
    return np.ascontiguousarray(patches.reshape(1, len(positions), -1))


def _sample(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.asarray(rows[generator.choice(len(rows), min(SAMPLED_ROWS, len(rows)), replace=False)])


def _inverse_factors(squares: np.ndarray) -> np.ndarray:
    """(groups, d, d) sums of x xᵀ -> upper triangular U with UᵀU = their damped inverse.

    Row i of U says how the later rows compensate for the error of row i.
    """
    damped = squares.astype(np.float64)
    size = damped.shape[1]
    diagonal = np.arange(size)
    damped[:, diagonal, diagonal] += DAMPING * np.trace(damped, axis1=1, axis2=2)[:, None] / size + 1e-12
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1), dtype=np.float32)


def _rounded(weight: np.ndarray, update: np.ndarray, bits: int) -> np.ndarray:
    """weight (groups, d_in, d_out), update (groups, d_in, d_in) -> multiples of `steps(weight, bits)`."""
    step, limit = steps(weight, bits).astype(np.float32), MAX_WEIGHT[bits]
    left = weight.copy()
    largest = np.abs(weight).argmax(axis=1)  # unchanged, so that the quantiser derives exactly this grid
    for row in range(weight.shape[1]):
        exact = left[:, row].copy()
        nearest = np.clip(np.round(exact / step), -limit, limit) * step
        left[:, row] = np.where(largest == row, weight[:, row], nearest)
        error = (exact - left[:, row]) / update[:, row, row, None]
        left[:, row + 1 :] -= update[:, row, row + 1 :, None] * error[:, None, :]
    return left
