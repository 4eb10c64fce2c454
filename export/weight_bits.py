"""Choose seven or eight bits for the weights of each layer, so that one int8 file is fast on every CPU.

In: an int8 graph with 8-bit weights, the weights of its layers on the 7-bit grid, held-back calibration data. Out: the
graph with 7-bit weights in layers where they cost little, and a table of the layers.

A CPU without VNNI adds pairs of 8-bit products in 16 bits. These sums overflow unless all weights lie in -64..64. On
such a CPU, MiniCLIP asks onnxruntime for exact sums (`miniclip.inference.int8_sums`), and layers with larger weights
then run in slower kernels. With VNNI, both grids are exact and equally fast. Depthwise convolutions always keep 8 bits,
because 7 bits change their results most and do not make them faster.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from .activation_ranges import replace_constant, rescale_bias
from .gptq import MAX_WEIGHT, rounded_name
from .graph import Feeds, Wiring

MAX_ERROR_GROWTH = 1.3  # limit for the mean of 1 - cosine to fp32, relative to that of all layers in 8 bits

MAX_MULTIPLICATIONS = 1e12  # about ten seconds on two cores
MIN_BATCHES = 4

Error = Callable[[onnx.ModelProto], float]  # mean of 1 - cosine to fp32 on held-back data


@dataclass(frozen=True)
class LayerBits:
    """One layer that could be rounded to either grid."""

    name: str
    bits: int
    cost: float  # increase of the mean of 1 - cosine to fp32 from 7 bits in this layer alone
    work: float  # share of the multiplications of all these layers


def choose_bits(
    int8: onnx.ModelProto, seven: dict[str, np.ndarray], work: dict[str, int], error: Error
) -> list[LayerBits]:
    """Choose 7 bits for the layers that lose least for the time they save, up to `MAX_ERROR_GROWTH`.

    `seven` has the 7-bit weights and `work` the multiplications of each layer. Layers that are not quantised in `int8`
    are ignored. First the cost of every layer alone is measured. These costs do not add up exactly, so selections of
    several sizes are then measured, and the largest one within the limit is chosen.
    """
    stored = {item.name for item in int8.graph.initializer}
    seven = {layer: weight for layer, weight in seven.items() if f"{rounded_name(layer)}_quantized" in stored}
    base = error(int8)
    cost = {layer: error(with_7_bits(int8, {layer: weight})) - base for layer, weight in seven.items()}
    order = sorted(seven, key=lambda layer: max(cost[layer], 0.0) / work[layer])
    spent = np.cumsum([max(cost[layer], 0.0) for layer in order])
    limit, low, high = base * MAX_ERROR_GROWTH, 0, int((spent <= base * (MAX_ERROR_GROWTH - 1)).sum())
    while low < high:
        count = (low + high + 1) // 2
        if error(with_7_bits(int8, {name: seven[name] for name in order[:count]})) <= limit:
            low = count
        else:
            high = count - 1
    narrow, total = set(order[:low]), sum(work[layer] for layer in seven)
    return [LayerBits(layer, 7 if layer in narrow else 8, cost[layer], work[layer] / total) for layer in seven]


def some_of(feeds: Feeds, work: dict[str, int]) -> Feeds:
    """Evenly chosen batches, as many as fit into `MAX_MULTIPLICATIONS`: `choose_bits` runs the tower once per layer."""
    # the work of one image or of one token
    units = sum(len(feed["pixel_values"]) if "pixel_values" in feed else feed["input_ids"].size for feed in feeds)
    total = units * sum(work.values()) * (len(work) + 1)
    step = max(1, math.ceil(total / MAX_MULTIPLICATIONS))
    return feeds[::step] if len(feeds) // step >= MIN_BATCHES else feeds[:: max(1, len(feeds) // MIN_BATCHES)]


def with_7_bits(int8: onnx.ModelProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of the graph whose layers named in `weights` store these weights, which lie on the 7-bit grid.

    The step of a convolution's bias is the input scale times the weight scale, so the bias is requantised as well:
    onnxruntime does not fuse a convolution whose bias has another scale.
    """
    model = copy.deepcopy(int8)
    known = Wiring(model.graph)
    convolutions = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    for layer, weight in weights.items():
        name = rounded_name(layer)
        scale = known.constants[f"{name}_scale"]
        before = numpy_helper.to_array(scale)
        axes = (1, 2, 3) if weight.ndim == 4 else (0,)
        largest = np.abs(weight).max(axis=axes, keepdims=True)
        # for zero weights, or if the bias would overflow, the quantiser's scale is larger than the weights need
        after = np.maximum(largest / MAX_WEIGHT[7], before.reshape(largest.shape))
        replace_constant(known.constants[f"{name}_quantized"], np.round(weight / after).astype(np.int8))
        growth = after.reshape(before.shape) / before
        if layer in convolutions and len(convolutions[layer].input) > 2:
            bias = known.made_by(convolutions[layer].input[2], "DequantizeLinear")
            assert bias is not None
            rescale_bias(known, bias, growth)
        replace_constant(scale, (before * growth).astype(np.float32))
    return model


def layer_work(model: onnx.ModelProto, layers: dict[str, np.ndarray]) -> dict[str, int]:
    """Multiplications of each layer for one image or one token."""
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    shapes = {item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in inferred}
    work = {}
    for node in model.graph.node:
        if node.name in layers:
            positions = int(np.prod(shapes.get(node.output[0], [])[2:])) if node.op_type == "Conv" else 1
            work[node.name] = layers[node.name].size * max(positions, 1)
    return work
