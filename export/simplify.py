"""Rewrite the exporter's graph into an equivalent one with fewer steps.

The exporter projects query, key and value separately, splits them into heads and transposes them for the operator
`Attention` (ONNX opset 23). `Attention` also accepts them unsplit as `(B, L, H * d)`, so these steps are removed. In a
text tower the number of nodes, not arithmetic, limits the speed of a single query, so one product computes all three. A
vision tower has many tokens, and splitting the product again would cost more than it saves. A scale after a layer
(DINOv2's LayerScale) is folded into the layer's weights.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .graph import Wiring, drop_unused, insert_before


@dataclass(frozen=True)
class Projection:
    """Query, key or value: `projected = x @ weight + bias`, then split into heads of `head_dim`."""

    projected: str
    x: str
    weight: np.ndarray  # (d_in, H * head_dim)
    bias: np.ndarray  # (H * head_dim,)
    bias_name: str
    head_dim: int


def simplify_attention(model: onnx.ModelProto, merge: bool, drop_masks: bool) -> None:
    """Rewrite every `Attention` that has the exporter's structure; others stay unchanged.

    `merge` computes query, key and value in one product. `drop_masks` removes attention masks: the exporter also writes
    them for a vision tower, where nothing is padded.
    """
    graph = model.graph
    for attention in [node for node in graph.node if node.op_type == "Attention"]:
        if drop_masks:
            del attention.input[3:]
        known = Wiring(graph)
        found = [_projection(known, name) for name in attention.input[:3]]
        projections = [projection for projection in found if projection is not None]
        back = known.read_by(attention.output[0], "Transpose")
        flat = back and known.read_by(back.output[0], "Reshape")
        if flat is None or len(projections) < 3:
            continue
        if merge and len({projection.x for projection in projections}) == 1:
            parts = _merged(graph, attention, projections)
        else:
            parts = [projection.projected for projection in projections]
        attention.input[:3] = parts
        attention.output[0], flat.output[0] = flat.output[0], f"{flat.output[0]}_unused"
        attention.attribute.extend(
            helper.make_attribute(key, len(projection.bias) // projection.head_dim)
            for key, projection in zip(("q_num_heads", "kv_num_heads"), projections, strict=False)
        )
    drop_unused(model)


def spread_rotations(model: onnx.ModelProto) -> None:
    """Repeat the cosines and sines of each `RotaryEmbedding` for every text of the batch.

    The exporter may write one row for the whole batch, which onnxruntime does not broadcast.
    """
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "RotaryEmbedding" and len(node.input) == 3]:
        batch, shape, ones = (f"{node.name}_{part}" for part in ("batch", "shape", "ones"))
        graph.initializer.append(numpy_helper.from_array(np.ones(2, dtype=np.int64), ones))
        steps = [
            helper.make_node("Shape", [node.input[0]], [batch], name=batch, start=0, end=1),
            helper.make_node("Concat", [batch, ones], [shape], name=shape, axis=0),
        ]
        for position, name in enumerate(("cosines", "sines"), 1):
            spread = f"{node.name}_{name}"
            steps.append(helper.make_node("Expand", [node.input[position], shape], [spread], name=spread))
            node.input[position] = spread
        insert_before(graph, node, steps)


def fold_scales(model: onnx.ModelProto) -> None:
    """Replace Mul(Add(MatMul(x, weight), bias), scale) with a constant scale by the same without Mul."""
    graph = model.graph
    known = Wiring(graph)
    for node in [node for node in graph.node if node.op_type == "Mul"]:
        scales = [name for name in node.input if name in known.constants]
        add = known.made_by(next((name for name in node.input if name not in scales), ""), "Add")
        product = add and known.made_by(add.input[0], "MatMul")
        if len(scales) != 1 or add is None or product is None or known.read_by(add.output[0], "Mul") is None:
            continue
        if known.read_by(product.output[0], "Add") is None:
            continue
        scale, weight, bias = (known.constant(name) for name in (scales[0], product.input[1], add.input[1]))
        if weight is None or bias is None or scale is None or scale.shape != bias.shape or bias.ndim != 1:
            continue
        layer = add.input[1].rpartition(".")[0]
        product.input[1], add.input[1] = f"{layer}.{node.name}_weight", f"{layer}.{node.name}_bias"
        graph.initializer.append(numpy_helper.from_array(weight * scale, product.input[1]))
        graph.initializer.append(numpy_helper.from_array(bias * scale, add.input[1]))
        add.output[0] = node.output[0]
        graph.node.remove(node)
    drop_unused(model)


def _projection(known: Wiring, name: str) -> Projection | None:
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
    return Projection(add.output[0], product.input[0], weight, bias, add.input[1], int(shape[-1]))


def _merged(graph: onnx.GraphProto, attention: onnx.NodeProto, projections: list[Projection]) -> list[str]:
    """Put one product and a split before `attention`; returns the names of the three parts."""
    name = attention.name
    # named after the layer and the node, because the exporter gives equal constants the same name
    prefix = f"{projections[0].bias_name.rpartition('.')[0]}.{name}"
    constants = {
        f"{prefix}_weight": np.concatenate([p.weight for p in projections], axis=1),
        f"{prefix}_bias": np.concatenate([p.bias for p in projections]),
        f"{prefix}_widths": np.asarray([len(p.bias) for p in projections], dtype=np.int64),
    }
    weight, bias, widths = constants
    parts = [f"{name}_{part}" for part in ("query", "key", "value")]
    graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    steps = [
        helper.make_node("MatMul", [projections[0].x, weight], [f"{name}_product"], name=f"{name}_MatMul"),
        helper.make_node("Add", [f"{name}_product", bias], [f"{name}_projected"], name=f"{name}_Add"),
        helper.make_node("Split", [f"{name}_projected", widths], parts, name=f"{name}_Split", axis=-1),
    ]
    insert_before(graph, attention, steps)
    return parts
