"""Outlier channels of a transformer, made smaller before 8-bit products.

One channel in a hundred of a transformer's activations is ten times as large as the others, and one scale a tensor
then leaves the others few of the 256 steps. Such a channel is divided by a constant, and its row of the weights
multiplied by it: the same product (G. Xiao et al., "SmoothQuant", ICML 2023, section 4). Unlike there, only channels
above a limit are touched, and each product's limit is the one that 8 bits serve best on calibration data.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graph import Feeds, drop_unused, look_inside

LIMIT_PERCENTILES = (100.0, 99.8, 99.5, 99.0, 98.0, 96.0, 92.0, 85.0)  # of the channels' largest values; 100: untouched
SAMPLED_ROWS = 64  # of each batch


def scale_outliers(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """The same function, with a multiplication before each matrix product that gains from it."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    products: dict[str, list[onnx.NodeProto]] = {}  # by input: query, key and value share theirs
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            products.setdefault(node.input[0], []).append(node)
    largest, rows = _activations(model, list(products), feeds)
    for name, nodes in products.items():
        weights = [numpy_helper.to_array(constants[node.input[1]]) for node in nodes]
        scales = _best_scales(largest[name], rows[name], np.concatenate(weights, axis=1))
        if (scales == 1).all():
            continue
        first, scaled = nodes[0], f"{nodes[0].name}_scaled"
        graph.initializer.append(numpy_helper.from_array(1 / scales, f"{scaled}_by"))
        multiplication = helper.make_node("Mul", [name, f"{scaled}_by"], [scaled], name=f"{first.name}_scale")
        graph.node.insert(list(graph.node).index(first), multiplication)
        for node, weight in zip(nodes, weights, strict=True):
            node.input[0], node.input[1] = scaled, f"{node.name}_weight"
            graph.initializer.append(numpy_helper.from_array(weight * scales[:, None], node.input[1]))
    drop_unused(model)
    return model


def _activations(
    model: onnx.ModelProto, names: list[str], feeds: Feeds
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each channel's largest absolute value, and a sample of rows with the most extreme ones among them."""
    largest: dict[str, np.ndarray] = {}
    samples: dict[str, list[np.ndarray]] = {name: [] for name in names}
    generator = np.random.default_rng(0)
    for tensors in look_inside(model, names, feeds):
        for name, values in zip(names, tensors, strict=True):
            largest[name] = np.maximum(largest.get(name, 0), np.abs(values).max(axis=0))
            extremes = [int(values.max(axis=1).argmax()), int(values.min(axis=1).argmin())]
            chosen = generator.choice(len(values), min(SAMPLED_ROWS, len(values)), replace=False)
            samples[name].append(values[[*extremes, *chosen]])
    return largest, {name: np.concatenate(parts) for name, parts in samples.items()}


def _best_scales(largest: np.ndarray, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The divisors (d,) float32 that bring `rows @ weight` in 8 bits nearest to what it is in 32."""
    expected = rows @ weight
    candidates = [
        np.maximum(1, largest / max(float(np.percentile(largest, percentile)), 1e-6)).astype(np.float32)
        for percentile in LIMIT_PERCENTILES
    ]
    losses = [
        float(np.square(_rounded(rows / scales) @ _rounded_columns(weight * scales[:, None]) - expected).mean())
        for scales in candidates
    ]
    return candidates[int(np.argmin(losses))]


def _rounded(values: np.ndarray) -> np.ndarray:
    """As 256 steps between the tensor's extremes, zero among them: onnxruntime's DynamicQuantizeLinear."""
    low, high = min(float(values.min()), 0), max(float(values.max()), 0)
    step = (high - low) / 255 or 1
    return np.round(values / step) * step


def _rounded_columns(weight: np.ndarray) -> np.ndarray:
    """As signed 8-bit numbers with a scale a column."""
    step = np.abs(weight).max(axis=0) / 127 + 1e-12
    return np.asarray(np.round(weight / step) * step)
