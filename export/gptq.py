"""The weights of matrix products and of 1 x 1 convolutions rounded to 8 bits so that their errors cancel.

Rounding each weight to the nearest step is best for each weight, not for the product: the inputs of a layer are
correlated, so the error of one row can be made good by the rows that are still to be rounded (E. Frantar et al.,
"GPTQ", ICLR 2023, section 3, after B. Hassibi and D. Stork, "Optimal Brain Surgeon", NIPS 1992).
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper

from .graph import Feeds, constant_products, drop_unused, look_inside

SAMPLED_ROWS = 256  # of each batch; a layer needs some more rows than it has inputs
DAMPING = 0.001  # of the mean square of the inputs, added to each: channels that hardly ever speak stay solvable


def round_weights(model: onnx.ModelProto, feeds: Feeds, exclude: Collection[str] = ()) -> onnx.ModelProto:
    """The same graph with every such weight on the grid of `steps`, chosen on the inputs that `feeds` give it.

    The weights of nodes named in `exclude` stay as they are.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    constants = {item.name: item for item in model.graph.initializer}
    layers = {
        name: kept
        for name, nodes in [*constant_products(model).items(), *_pointwise_convolutions(model).items()]
        if (kept := [node for node in nodes if node.name not in exclude])
    }
    squares = _squares(model, list(layers), feeds) if layers else {}
    for name, nodes in layers.items():
        update = _inverse_factor(squares[name])
        for node in nodes:
            weight = numpy_helper.to_array(constants[node.input[1]])
            if node.op_type == "Conv":  # (d_out, d_in, 1, 1)
                rounded = _rounded(weight[:, :, 0, 0].T, update).T[:, :, None, None]
            else:
                rounded = _rounded(weight, update)
            node.input[1] = f"{node.name}_rounded"
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(rounded), node.input[1]))
    drop_unused(model)
    return model


def _pointwise_convolutions(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Convolutions that are a matrix product at every place, by their input."""
    shapes = {item.name: list(item.dims) for item in model.graph.initializer}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        grouped = any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)
        if node.op_type == "Conv" and shapes.get(node.input[1], [])[2:] == [1, 1] and not grouped:
            found.setdefault(node.input[0], []).append(node)
    return found


def steps(weight: np.ndarray) -> np.ndarray:
    """(d_in, d_out) -> (d_out,): the step of each column's 8-bit numbers, as onnxruntime's quantiser takes it."""
    return np.asarray(np.abs(weight).max(axis=0) / 127 + 1e-12)


def _squares(model: onnx.ModelProto, names: list[str], feeds: Feeds) -> dict[str, np.ndarray]:
    """The sum of x xᵀ over sampled rows x of each tensor: (d, d)."""
    squares: dict[str, np.ndarray] = {}
    generator = np.random.default_rng(0)
    for tensors in look_inside(model, names, feeds):
        for name, values in zip(names, tensors, strict=True):
            rows = values[generator.choice(len(values), min(SAMPLED_ROWS, len(values)), replace=False)]
            squares[name] = squares.get(name, 0) + rows.T @ rows
    return squares


def _inverse_factor(squares: np.ndarray) -> np.ndarray:
    """The upper triangular U with UᵀU = inverse of the damped `squares`: row i says how to make good for input i."""
    damped = squares.astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * float(np.trace(damped)) / len(damped) + 1e-12
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T, dtype=np.float32)


def _rounded(weight: np.ndarray, update: np.ndarray) -> np.ndarray:
    """(d_in, d_out) float32, all multiples of `steps(weight)`."""
    step = steps(weight).astype(np.float32)
    left = weight.copy()
    largest = np.abs(weight).argmax(axis=0)  # stays, so that the quantiser finds this very grid
    columns = np.arange(weight.shape[1])
    for row in range(len(weight)):
        exact = left[row].copy()
        left[row] = np.clip(np.round(exact / step), -127, 127) * step
        kept = columns[largest == row]
        left[row, kept] = weight[row, kept]
        left[row + 1 :] -= np.outer(update[row, row + 1 :], (exact - left[row]) / update[row, row])
    return left
