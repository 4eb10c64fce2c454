"""The nodes of a tower's graph, grouped by the layers of the model that they come from."""

import re

import onnx


def layer_sets(model: onnx.ModelProto) -> dict[str, set[str]]:
    """The names of the nodes of each set.

    In a transformer, a set is the layers of one name at all depths, such as `encoder.layer.N.output.dense`. In a
    convolutional tower, a set is a block. A node without weights belongs to the set of the layer before it.
    """
    weights = {item.name for item in model.graph.initializer}
    users: dict[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.input}
    sets: dict[str, set[str]] = {}
    current = "inputs"
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Conv", "Gemm", "Gather"):
            # the exporter renames a transposed weight; the bias added after it keeps the name of the layer
            added = [name for output in node.output if output in users for name in users[output].input]
            named = [name for name in [*node.input, *added] if name in weights and "." in name]
            if named:
                layer = named[0].removeprefix("tower.backbone.").rpartition(".")[0]
                block = re.match(r".*?\.\d+(?=\.|$)", layer) if node.op_type == "Conv" else None
                current = block[0] if block else re.sub(r"\.\d+(?=\.|$)", ".N", layer)
        sets.setdefault(current, set()).add(node.name)
    return {name: nodes for name, nodes in sets.items() if name != "inputs"}
