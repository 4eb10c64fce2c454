"""fp32 ONNX file -> fp16 for GPUs and int8 for CPUs.

In: a file of `export.to_onnx`. Out: the same graph, float32 in and out, with half-precision or 8-bit weights.
fp16 keeps what overflows or loses too much (norms, Softmax, Pow) in fp32. int8 is static (calibrated activations, Q/DQ
pairs) for convolutional towers and dynamic (activations scaled on the fly) for transformers; convolutions gain nothing
from dynamic scales, and transformers lose accuracy with static ones (B. Jacob et al., CVPR 2018, for the arithmetic).
"""

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from export.to_onnx import forget_origin

KEPT_IN_FP32 = [*DEFAULT_OP_BLOCK_LIST, "LayerNormalization", "Softmax", "Pow", "ReduceL2", "ReduceMean", "ReduceSum", "Div"]
CALIBRATION_BATCH = 8
WORD_TABLE_ROWS = 2048  # smaller tables (positions, segments) are not worth it
FULL_PRECISION_CONVOLUTIONS = 3  # the first see raw pixels, whose range 8 bits serve badly: most of the loss, little of the time


class PictureReader(CalibrationDataReader):
    """Hands `pixel_values` to the calibrator, a batch at a time."""

    def __init__(self, pixel_values: np.ndarray) -> None:
        self._batches = iter(
            pixel_values[start : start + CALIBRATION_BATCH] for start in range(0, len(pixel_values), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixel_values": batch}


def write_fp16(fp32: Path, fp16: Path) -> None:
    """Half-precision weights and arithmetic, float32 inputs and outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of every weight below fp16's smallest number, which become zero
        fp32_model = onnx.load(fp32)
        tail = normalisation_tail(fp32_model)
        model = convert_float_to_float16(
            fp32_model, keep_io_types=True, op_block_list=KEPT_IN_FP32, node_block_list=tail
        )
    _save(model, fp16)


def normalisation_tail(model: onnx.ModelProto) -> list[str]:
    """Names of the last nodes, from the head's LayerNormalization on: the L2 norm must not be rounded to 11 bits."""
    nodes = list(model.graph.node)
    last_norm = max((i for i, node in enumerate(nodes) if node.op_type == "LayerNormalization"), default=len(nodes))
    return [node.name for node in nodes[last_norm:]]


def write_int8(fp32: Path, int8: Path, calibration: np.ndarray | None) -> None:
    """8-bit weights; `calibration (N, 3, H, W)` is needed by a tower with convolutions beyond its patches."""
    if is_convolutional(onnx.load(fp32)):
        if calibration is None:
            raise ValueError("a convolutional tower needs calibration pictures")
        _write_static(fp32, int8, calibration)
    else:
        _write_dynamic(fp32, int8)


def is_convolutional(model: onnx.ModelProto) -> bool:
    """Whether the tower is more than one convolution deep: a transformer has one, which cuts the patches."""
    return sum(node.op_type == "Conv" for node in model.graph.node) > 1


def _write_static(fp32: Path, int8: Path, calibration: np.ndarray) -> None:
    """Per-channel signed weights, unsigned activations (ReLU6 gives no negatives), minimum and maximum as the range."""
    with tempfile.TemporaryDirectory() as tmp:
        prepared, quantised = Path(tmp) / "prepared.onnx", Path(tmp) / "quantised.onnx"
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        convolutions = [node for node in graph.node if node.op_type == "Conv"][:FULL_PRECISION_CONVOLUTIONS]
        outputs = {name for node in convolutions for name in node.output}
        activations = [node for node in graph.node if node.op_type in ("Clip", "Relu") and node.input[0] in outputs]
        _quietly()
        quantize_static(
            prepared,
            quantised,
            PictureReader(calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv", "Clip", "Add", "Relu", "MaxPool"],
            nodes_to_exclude=[node.name for node in [*convolutions, *activations]],
        )
        _save(onnx.load(quantised), int8)


def _write_dynamic(fp32: Path, int8: Path) -> None:
    """Matrix products in 8 bits (named, since the default set of operators makes invalid graphs), then the word table."""
    with tempfile.TemporaryDirectory() as tmp:
        quantised = Path(tmp) / "quantised.onnx"
        _quietly()
        quantize_dynamic(fp32, quantised, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        model = onnx.load(quantised)
    _quantise_word_table(model)
    _save(model, int8)


def _quantise_word_table(model: onnx.ModelProto) -> None:
    """Replace the float table (V, d) by int8 rows with a scale each: Gather -> Cast -> Mul.

    The quantiser knows one scale for a whole table, which a few rare words with large weights would set for all.
    """
    graph = model.graph
    tables = {item.name: item for item in graph.initializer}
    lookups = [node for node in graph.node if node.op_type == "Gather" and node.input[0] in tables]
    for node in lookups:
        name = node.input[0]
        table = numpy_helper.to_array(tables[name])
        if table.ndim != 2 or table.dtype != np.float32 or len(table) < WORD_TABLE_ROWS:
            continue
        scales = np.abs(table).max(axis=1, keepdims=True) / 127 + 1e-12
        rows = np.clip(np.round(table / scales), -127, 127).astype(np.int8)
        graph.initializer.remove(tables[name])
        graph.initializer.append(numpy_helper.from_array(rows, f"{name}_rows"))
        graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales"))
        ids, output = node.input[1], node.output[0]
        steps = [
            helper.make_node("Gather", [f"{name}_rows", ids], [f"{output}_rows"], name=f"{node.name}_rows"),
            helper.make_node("Gather", [f"{name}_scales", ids], [f"{output}_scales"], name=f"{node.name}_scales"),
            helper.make_node("Cast", [f"{output}_rows"], [f"{output}_float"], name=f"{node.name}_cast", to=1),
            helper.make_node("Mul", [f"{output}_float", f"{output}_scales"], [output], name=f"{node.name}_scale"),
        ]
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, step in enumerate(steps):
            graph.node.insert(place + offset, step)


def _quietly() -> None:
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser logs advice to the root logger


def _save(model: onnx.ModelProto, path: Path) -> None:
    forget_origin(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
