"""Convert an fp32 ONNX file to fp16 for GPUs: half-precision weights and arithmetic, float32 in and out.

Operators that overflow or lose too much precision (norms, Softmax, Pow, the last L2 norm, the first convolutions) stay
in fp32.
"""

from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from miniclip.models.onnx_graph import quiet_tools

from .graph import drop_unused, first_convolutions, is_convolutional, save_graph

KEPT_IN_FP32 = [*DEFAULT_OP_BLOCK_LIST, "LayerNormalization", "Softmax", "Pow", "Div"]
KEPT_IN_FP32 += ["ReduceL2", "ReduceMean", "ReduceSum"]
FIRST_IN_FP32 = 5  # convolutions: they read raw pixels, cause most of the error, and take little time


def write_fp16(fp32: Path, fp16: Path) -> None:
    """Convert the file `fp32` and write the file `fp16`."""
    with quiet_tools():  # the converter warns about each weight that is too small for fp16 and becomes zero
        fp32_model = onnx.load(fp32)
        kept = normalisation_tail(fp32_model)
        if is_convolutional(fp32_model):
            kept += first_convolutions(fp32_model, FIRST_IN_FP32)
        blocked = {"op_block_list": KEPT_IN_FP32, "node_block_list": kept}
        model = convert_float_to_float16(fp32_model, keep_io_types=True, **blocked)
    _drop_round_trips(model)
    save_graph(model, fp16)


def _drop_round_trips(model: onnx.ModelProto) -> None:
    """Remove the casts to fp16 and back that the converter puts between two fp32 nodes: they round fp32 values."""
    producers = {name: node for node in model.graph.node for name in node.output}
    original: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type != "Cast" or node.attribute[0].i != onnx.TensorProto.FLOAT:
            continue
        inner = producers.get(node.input[0])
        if inner is not None and inner.op_type == "Cast" and inner.name.endswith("_cast_to_fp16_node"):
            original[node.output[0]] = inner.input[0]
    outputs = {output.name for output in model.graph.output}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = original.get(name, name)
        if node.op_type == "Cast" and node.output[0] in outputs and node.output[0] in original:
            node.op_type = "Identity"
            del node.attribute[:]
            node.input[0] = original[node.output[0]]
    drop_unused(model)


def normalisation_tail(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes from the last LayerNormalization to the end; without one, from the head's matrix product.

    They stay in fp32, because fp16 would round the L2 norm to 11 bits.
    """
    nodes = list(model.graph.node)
    last = {node.op_type: place for place, node in enumerate(nodes)}
    start = last.get("LayerNormalization", max(last.get("Gemm", 0), last.get("MatMul", 0)))
    return [node.name for node in nodes[start:]]
