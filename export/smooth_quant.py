"""Scale down the outlier channels and tokens of a transformer before its 8-bit products.

In a transformer's activations, about one channel in a hundred is ten times as large as the others. With one scale per
tensor, only a few of the 256 steps remain for the other channels. Dividing such a channel by a constant, and
multiplying its row of the weights by it, leaves the product unchanged (G. Xiao et al., "SmoothQuant", ICML 2023,
section 4). Unlike the paper, this module changes only channels above a limit. For each product, it chooses the limit
with the smallest 8-bit error on calibration data. If the weights of a preceding layer can be divided instead, the
division costs no time.

If no layer can be divided, and outliers are in tokens rather than channels (M. Sun et al., "Massive Activations in
Large Language Models", COLM 2024), each row is divided by its largest value, and its product is multiplied by it.
"""

import copy

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .graph import Feeds, Wiring, constant_products, drop_unused, insert_before, look_inside

LIMIT_PERCENTILES = (100.0, 99.8, 99.5, 99.0, 98.0, 96.0, 92.0, 85.0)  # of the channels' largest values; 100: unchanged
SAMPLED_ROWS = 2048  # in total, over all batches
MIN_GAIN = 2.0  # a division that costs time must halve the squared error

Divisor = tuple[onnx.NodeProto, int, slice]  # a node, the position of its constant input, the columns


def scale_outliers(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """An equivalent graph, with a division before each matrix product that gains from it."""
    model = copy.deepcopy(model)
    graph = model.graph
    products = constant_products(model)
    largest, rows = _activations(model, list(products), feeds)
    for name, nodes in products.items():
        known = Wiring(graph)
        weights = [numpy_helper.to_array(known.constants[node.input[1]]) for node in nodes]
        weight = np.concatenate(weights, axis=1)
        free = _free_divisors(known, name, nodes)
        scales, loss, untouched = _best_scales(largest[name], rows[name], weight)
        if free:
            _divide_constants(graph, free, scales)
        else:
            least = _least_divisor(rows[name])
            loss_by_row = _squared_error(rows[name], weight, np.ones_like(scales), _row_divisors(rows[name], least))
            if min(loss, loss_by_row) * MIN_GAIN >= untouched:
                continue
            if loss_by_row < loss:
                _divide_rows(graph, name, nodes, least)
                continue
            name = _divide(graph, name, nodes[0], scales)
        for node, own in zip(nodes, weights, strict=True):
            node.input[0], node.input[1] = name, f"{node.name}_weight"
            graph.initializer.append(numpy_helper.from_array(own * scales[:, None], node.input[1]))
    drop_unused(model)
    return model


def _free_divisors(known: Wiring, name: str, nodes: list[onnx.NodeProto]) -> list[Divisor]:
    """The constants that can be divided instead of the tensor, at no cost in time.

    They are the scale and bias of a norm, or the weight and bias of an attention's values. The list is empty if nodes
    other than `nodes` read the tensor.
    """
    maker = known.producers.get(name)
    if maker is None or known.readers[name] != nodes:
        return []
    if maker.op_type == "LayerNormalization":
        return [(maker, place, slice(None)) for place in range(1, len(maker.input))]
    if maker.op_type != "Attention" or known.read_by(maker.input[2], "Attention") is None:
        return []
    value, columns = maker.input[2], slice(None)
    split = known.made_by(value, "Split")  # query, key and value from one product
    if split is not None and split.output[-1] == value and (widths := known.constant(split.input[1])) is not None:
        value, columns = split.input[0], slice(int(widths[:-1].sum()), None)
    add = known.made_by(value, "Add")
    product = add and known.made_by(add.input[0], "MatMul")
    if add is None or product is None:
        return []
    if known.constant(add.input[1]) is None or known.constant(product.input[1]) is None:
        return []
    return [(product, 1, columns), (add, 1, columns)]


def _divide_constants(graph: onnx.GraphProto, divisors: list[Divisor], scales: np.ndarray) -> None:
    constants = {item.name: item for item in graph.initializer}
    for node, place, columns in divisors:
        values = numpy_helper.to_array(constants[node.input[place]]).copy()
        values[..., columns] /= scales
        node.input[place] = f"{node.name}_scaled_{place}"
        graph.initializer.append(numpy_helper.from_array(values, node.input[place]))


def _divide(graph: onnx.GraphProto, name: str, first: onnx.NodeProto, scales: np.ndarray) -> str:
    """Insert a multiplication by 1 / scales before `first`; return the name of its result."""
    scaled = f"{first.name}_scaled"
    graph.initializer.append(numpy_helper.from_array(1 / scales, f"{scaled}_by"))
    multiplication = helper.make_node("Mul", [name, f"{scaled}_by"], [scaled], name=f"{first.name}_scale")
    insert_before(graph, first, [multiplication])
    return scaled


def _divide_rows(graph: onnx.GraphProto, name: str, nodes: list[onnx.NodeProto], least: float) -> None:
    """Divide each row by its largest value, or by `least` if that is larger, and multiply the nodes' results by it."""
    first = nodes[0].name
    largest, divisors, divided = (f"{first}_{what}" for what in ("row_largest", "row_divisors", "rows_divided"))
    constants = {f"{first}_last_axis": np.array([-1]), f"{first}_least": np.array(least, dtype=np.float32)}
    graph.initializer.extend(numpy_helper.from_array(values, key) for key, values in constants.items())
    axis, floor = constants
    steps = [
        helper.make_node("ReduceMax", [name, axis], [largest], name=largest),
        helper.make_node("Max", [largest, floor], [divisors], name=divisors),
        helper.make_node("Div", [name, divisors], [divided], name=divided),
    ]
    insert_before(graph, nodes[0], steps)
    for node in nodes:
        result, node.input[0], node.output[0] = node.output[0], divided, f"{node.name}_divided"
        step = helper.make_node("Mul", [node.output[0], divisors], [result], name=f"{node.name}_row_scale")
        graph.node.insert(list(graph.node).index(node) + 1, step)


def _activations(
    model: onnx.ModelProto, names: list[str], feeds: Feeds
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each channel's largest absolute value, and a sample of rows that includes the most extreme ones."""
    largest: dict[str, np.ndarray] = {}
    samples: dict[str, list[np.ndarray]] = {name: [] for name in names}
    generator = np.random.default_rng(0)
    share = max(1, SAMPLED_ROWS // len(feeds))
    for tensors in look_inside(model, names, feeds):
        for name, values in zip(names, tensors, strict=True):
            largest[name] = np.maximum(largest.get(name, 0), np.abs(values).max(axis=0))
            extremes = [int(values.max(axis=1).argmax()), int(values.min(axis=1).argmin())]
            chosen = generator.choice(len(values), min(share, len(values)), replace=False)
            samples[name].append(values[[*extremes, *chosen]])
    return largest, {name: np.concatenate(parts) for name, parts in samples.items()}


def _best_scales(largest: np.ndarray, rows: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The divisors (d,) float32 for which `rows @ weight` in 8 bits is closest to float32, and two errors.

    The first error remains with these divisors; the second is that without divisors.
    """
    candidates = [
        np.maximum(1, largest / max(float(np.percentile(largest, percentile)), 1e-6)).astype(np.float32)
        for percentile in LIMIT_PERCENTILES
    ]
    losses = [_squared_error(rows, weight, scales) for scales in candidates]
    best = int(np.argmin(losses))
    return candidates[best], losses[best], losses[0]


def _squared_error(
    rows: np.ndarray, weight: np.ndarray, scales: np.ndarray, row_divisors: np.ndarray | float = 1.0
) -> float:
    """Mean squared error of the 8-bit product: channels divided by `scales` (d,), rows by `row_divisors` (n, 1).

    Each row's error is relative to the row's size, because the norms after the products remove the size.
    """
    expected = rows @ weight
    product = _rounded(rows / row_divisors / scales) @ _rounded_columns(weight * scales[:, None])
    sizes = np.square(expected).mean(axis=1)
    errors = np.square(product * row_divisors - expected).mean(axis=1)
    return float((errors / (sizes + np.median(sizes) + 1e-12)).mean())


def _least_divisor(rows: np.ndarray) -> float:
    """The lower limit of row divisors: it keeps negative values above -1. After a GELU they are small."""
    return max(float(-rows.min()), 1e-6)


def _row_divisors(rows: np.ndarray, least: float) -> np.ndarray:
    return np.asarray(np.maximum(rows.max(axis=1, keepdims=True), least), dtype=np.float32)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round to 256 steps between the tensor's extremes, including zero, as onnxruntime's DynamicQuantizeLinear does."""
    low, high = min(float(values.min()), 0), max(float(values.max()), 0)
    step = (high - low) / 255 or 1
    return np.round(values / step) * step


def _rounded_columns(weight: np.ndarray) -> np.ndarray:
    """Round to signed 8-bit numbers with one scale per column."""
    step = np.abs(weight).max(axis=0) / 127 + 1e-12
    return np.asarray(np.round(weight / step) * step)
