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
LEAST_GAIN = 2.0  # a division that costs a multiplication at run time must halve the squared error


def scale_outliers(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """The same function, with a division before each matrix product that gains from it."""
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
        norm = _norm_before(graph, name, nodes)
        least_gain = 1.0 if norm is not None else LEAST_GAIN
        scales = _best_scales(largest[name], rows[name], np.concatenate(weights, axis=1), least_gain)
        if (scales == 1).all():
            continue
        scaled = _divide(graph, name, nodes[0], scales) if norm is None else _divide_norm(graph, norm, scales)
        for node, weight in zip(nodes, weights, strict=True):
            node.input[0], node.input[1] = scaled, f"{node.name}_weight"
            graph.initializer.append(numpy_helper.from_array(weight * scales[:, None], node.input[1]))
    drop_unused(model)
    return model


def _norm_before(graph: onnx.GraphProto, name: str, nodes: list[onnx.NodeProto]) -> onnx.NodeProto | None:
    """The LayerNormalization whose result only `nodes` read: its own scale and bias can be divided, at no cost."""
    maker = next((node for node in graph.node if name in node.output), None)
    readers = [node for node in graph.node if name in node.input]
    return maker if maker is not None and maker.op_type == "LayerNormalization" and readers == nodes else None


def _divide_norm(graph: onnx.GraphProto, norm: onnx.NodeProto, scales: np.ndarray) -> str:
    constants = {item.name: item for item in graph.initializer}
    for place in range(1, len(norm.input)):
        values = numpy_helper.to_array(constants[norm.input[place]])
        norm.input[place] = f"{norm.name}_scaled_{place}"
        graph.initializer.append(numpy_helper.from_array(values / scales, norm.input[place]))
    return str(norm.output[0])


def _divide(graph: onnx.GraphProto, name: str, first: onnx.NodeProto, scales: np.ndarray) -> str:
    """Put a multiplication before `first`; returns the name of its result."""
    scaled = f"{first.name}_scaled"
    graph.initializer.append(numpy_helper.from_array(1 / scales, f"{scaled}_by"))
    multiplication = helper.make_node("Mul", [name, f"{scaled}_by"], [scaled], name=f"{first.name}_scale")
    graph.node.insert(list(graph.node).index(first), multiplication)
    return scaled


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


def _best_scales(largest: np.ndarray, rows: np.ndarray, weight: np.ndarray, least_gain: float) -> np.ndarray:
    """The divisors (d,) float32 that bring `rows @ weight` in 8 bits nearest to what it is in 32.

    Ones, unless the squared error gets smaller by the factor `least_gain`.
    """
    expected = rows @ weight
    candidates = [
        np.maximum(1, largest / max(float(np.percentile(largest, percentile)), 1e-6)).astype(np.float32)
        for percentile in LIMIT_PERCENTILES
    ]
    losses = [
        float(np.square(_rounded(rows / scales) @ _rounded_columns(weight * scales[:, None]) - expected).mean())
        for scales in candidates
    ]
    best = int(np.argmin(losses))
    return candidates[best if losses[best] * least_gain <= losses[0] else 0]


def _rounded(values: np.ndarray) -> np.ndarray:
    """As 256 steps between the tensor's extremes, zero among them: onnxruntime's DynamicQuantizeLinear."""
    low, high = min(float(values.min()), 0), max(float(values.max()), 0)
    step = (high - low) / 255 or 1
    return np.round(values / step) * step


def _rounded_columns(weight: np.ndarray) -> np.ndarray:
    """As signed 8-bit numbers with a scale a column."""
    step = np.abs(weight).max(axis=0) / 127 + 1e-12
    return np.asarray(np.round(weight / step) * step)
