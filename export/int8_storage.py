"""Store word tables and heads as int8 rows with one float32 scale per row; compute them in float32.

The quantiser has only one scale for a whole table, and a few rare words with large weights would determine it. The
heads need a thousandth of the arithmetic, but a large part of a small model's file.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .graph import drop_unused, insert_before

TABLE_ROWS = 2048  # smaller tables (positions, segments) are not worth it


def store_in_8_bits(model: onnx.ModelProto, exclude: Collection[str]) -> None:
    """Store word table and heads in 8 bits, except for nodes named in `exclude`.

    onnxruntime unpacks the heads when it opens the file. After dynamic quantisation, the heads are already in 8 bits,
    so only the table changes.
    """
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    for node in list(graph.node):
        if node.name in exclude:
            continue
        if node.op_type == "Gather" and node.input[0] in weights:
            _store_table(graph, node, weights[node.input[0]])
        elif node.op_type == "Gemm" and node.input[1] in weights:
            _store_head(graph, node, weights[node.input[1]])
    drop_unused(model)


def _store_table(graph: onnx.GraphProto, node: onnx.NodeProto, table: TensorProto) -> None:
    """Gather of floats -> Gather of rows and of scales -> Cast -> Mul."""
    values = numpy_helper.to_array(table)
    if values.ndim != 2 or values.dtype != np.float32 or len(values) < TABLE_ROWS:
        return
    _add_rows(graph, table.name, values, axis=1)
    ids, output = node.input[1], node.output[0]
    steps = [
        helper.make_node("Gather", [f"{table.name}_rows", ids], [f"{output}_rows"], name=f"{node.name}_rows"),
        helper.make_node("Gather", [f"{table.name}_scales", ids], [f"{output}_scales"], name=f"{node.name}_scales"),
        helper.make_node("Cast", [f"{output}_rows"], [f"{output}_float"], name=f"{node.name}_cast", to=1),
        helper.make_node("Mul", [f"{output}_float", f"{output}_scales"], [output], name=f"{node.name}_scale"),
    ]
    insert_before(graph, node, steps)
    graph.node.remove(node)


def _store_head(graph: onnx.GraphProto, node: onnx.NodeProto, weight: TensorProto) -> None:
    """Gemm with a float weight -> Cast and Mul of constants before the Gemm, with one scale per output."""
    name = weight.name
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    _add_rows(graph, name, numpy_helper.to_array(weight), axis=1 if transposed else 0)
    node.input[1] = f"{name}_unpacked"
    unpacking = [
        helper.make_node("Cast", [f"{name}_rows"], [f"{name}_float"], name=f"{node.name}_cast", to=1),
        helper.make_node("Mul", [f"{name}_float", f"{name}_scales"], [node.input[1]], name=f"{node.name}_scale"),
    ]
    insert_before(graph, node, unpacking)


def _add_rows(graph: onnx.GraphProto, name: str, values: np.ndarray, axis: int) -> None:
    scales = np.abs(values).max(axis=axis, keepdims=True) / 127 + 1e-12
    rows = np.clip(np.round(values / scales), -127, 127).astype(np.int8)
    graph.initializer.append(numpy_helper.from_array(rows, f"{name}_rows"))
    graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales"))
