"""Attention as one wide product instead of three narrow ones, and without moving heads about.

In: a graph as the exporter writes it, where query, key and value are projected apart, cut into heads and transposed for
the operator `Attention` (ONNX opset 23), which also takes them uncut as `(B, L, H * d)`. Out: the same function with
one matrix product and one split a layer. That removes a third of a text tower's nodes, and a single query is bound by
their number rather than by arithmetic.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graph import drop_unused


@dataclass(frozen=True)
class Projection:
    """One of query, key and value: `x @ weight + bias`, then cut into heads of `head_dim`."""

    x: str
    weight: np.ndarray  # (d_in, H * head_dim)
    bias: np.ndarray  # (H * head_dim,)
    bias_name: str
    head_dim: int


class _Graph:
    """Who makes a tensor, who reads it, and what constants hold."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output}
        self.constants = {item.name: item for item in graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def constant(self, name: str) -> np.ndarray | None:
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def made_by(self, name: str, operator: str) -> onnx.NodeProto | None:
        node = self.producers.get(name)
        return node if node is not None and node.op_type == operator else None

    def read_by(self, name: str, operator: str) -> onnx.NodeProto | None:
        """The only reader, if it is such a node."""
        nodes = self.readers.get(name, [])
        return nodes[0] if len(nodes) == 1 and nodes[0].op_type == operator else None


def merge_projections(model: onnx.ModelProto, drop_masks: bool) -> None:
    """Rewrite every `Attention` of the graph that has the exporter's shape; others stay as they are.

    `drop_masks` removes attention masks, which a vision tower has though nothing in a picture is padding.
    """
    graph = model.graph
    for attention in [node for node in graph.node if node.op_type == "Attention"]:
        if drop_masks:
            del attention.input[3:]
        known = _Graph(graph)
        projections = [_projection(known, name) for name in attention.input[:3]]
        back = known.read_by(attention.output[0], "Transpose")
        flat = back and known.read_by(back.output[0], "Reshape")
        if flat is None or any(p is None or p.x != projections[0].x for p in projections):  # type: ignore[union-attr]
            continue
        _rewrite(graph, attention, [p for p in projections if p is not None], flat.output[0])
        flat.output[0] = f"{flat.output[0]}_unused"
    drop_unused(model)


def _projection(known: _Graph, name: str) -> Projection | None:
    """Transpose(Reshape(Add(MatMul(x, weight), bias))) with heads second, read backwards from `name`."""
    transpose = known.made_by(name, "Transpose")
    if transpose is None or list(transpose.attribute[0].ints) != [0, 2, 1, 3]:
        return None
    reshape = known.made_by(transpose.input[0], "Reshape")
    add = reshape and known.made_by(reshape.input[0], "Add")
    product = add and known.made_by(add.input[0], "MatMul")
    if reshape is None or add is None or product is None:
        return None
    weight, bias = known.constant(product.input[1]), known.constant(add.input[1])
    shape = known.constant(reshape.input[1])
    if shape is None and (parts := known.made_by(reshape.input[1], "Concat")) is not None:
        shape = known.constant(parts.input[-1])
    if weight is None or bias is None or shape is None:
        return None
    return Projection(product.input[0], weight, bias, add.input[1], int(shape[-1]))


def _rewrite(graph: onnx.GraphProto, attention: onnx.NodeProto, projections: list[Projection], output: str) -> None:
    name, widths = attention.name, [len(p.bias) for p in projections]
    # named after the layer, and the node: the exporter lets equal constants share a name
    prefix = f"{projections[0].bias_name.rpartition('.')[0]}.{name}"
    constants = {
        f"{prefix}_weight": np.concatenate([p.weight for p in projections], axis=1),
        f"{prefix}_bias": np.concatenate([p.bias for p in projections]),
        f"{prefix}_widths": np.asarray(widths, dtype=np.int64),
    }
    weight, bias, sizes = constants
    parts = [f"{name}_{part}" for part in ("query", "key", "value")]
    graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    steps = [
        helper.make_node("MatMul", [projections[0].x, weight], [f"{name}_product"], name=f"{name}_MatMul"),
        helper.make_node("Add", [f"{name}_product", bias], [f"{name}_projected"], name=f"{name}_Add"),
        helper.make_node("Split", [f"{name}_projected", sizes], parts, name=f"{name}_Split", axis=-1),
    ]
    place = list(graph.node).index(attention)
    for offset, step in enumerate(steps):
        graph.node.insert(place + offset, step)
    attention.input[:3] = parts
    attention.output[0] = output
    attention.attribute.extend(
        helper.make_attribute(key, width // projections[0].head_dim)
        for key, width in (("q_num_heads", widths[0]), ("kv_num_heads", widths[1]))
    )
