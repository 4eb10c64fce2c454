"""fp32 ONNX file -> fp16 for GPUs and int8 for CPUs.

In: a file of `export.to_onnx`. Out: the same graph, float32 in and out, with half-precision or 8-bit weights.
fp16 keeps what overflows or loses too much (norms, Softmax, Pow) in fp32. int8 is static (calibrated activations, Q/DQ
pairs; B. Jacob et al., CVPR 2018) for convolutional towers and block-wise with activations scaled on the fly for
transformers: convolutions gain nothing from scales on the fly, and transformers lose accuracy with fixed ones.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from export.to_onnx import forget_origin, quiet_tools
from miniclip.errors import MiniClipError

KEPT_IN_FP32 = [
    *DEFAULT_OP_BLOCK_LIST,
    "LayerNormalization",
    "Softmax",
    "Pow",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "Div",
]
CALIBRATION_BATCH = 8
WEIGHT_BLOCK = 32  # weights that share a scale
INT8_ACTIVATIONS = 4  # onnxruntime's `accuracy_level` for 8-bit arithmetic
WORD_TABLE_ROWS = 2048  # smaller tables (positions, segments) are not worth it
# The first convolutions see raw pixels, whose range low precision serves badly: most of the loss, little of the time.
FIRST_IN_FP32 = {"fp16": 5, "int8": 3}


def in_batches(pixel_values: np.ndarray) -> Iterator[np.ndarray]:
    """Calibration pictures, a few at a time."""
    return (pixel_values[start : start + CALIBRATION_BATCH] for start in range(0, len(pixel_values), CALIBRATION_BATCH))


class PictureReader(CalibrationDataReader):
    """Hands `pixel_values` to the calibrator, a batch at a time."""

    def __init__(self, pixel_values: np.ndarray) -> None:
        self._batches = in_batches(pixel_values)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixel_values": batch}


def write_fp16(fp32: Path, fp16: Path) -> None:
    """Half-precision weights and arithmetic, float32 inputs and outputs."""
    with quiet_tools():  # the converter tells of every weight below fp16's smallest number, which become zero
        fp32_model = onnx.load(fp32)
        kept = normalisation_tail(fp32_model)
        if is_convolutional(fp32_model):
            kept += first_convolutions(fp32_model, FIRST_IN_FP32["fp16"])
        model = convert_float_to_float16(
            fp32_model, keep_io_types=True, op_block_list=KEPT_IN_FP32, node_block_list=kept
        )
    _drop_round_trips(model)
    _save(model, fp16)


def _drop_round_trips(model: onnx.ModelProto) -> None:
    """Between two fp32 nodes the converter casts to fp16 and back, which rounds what was to be kept: cut that out."""
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
    used = outputs | {name for node in model.graph.node for name in node.input}
    for node in [n for n in model.graph.node if n.op_type == "Cast" and n.output[0] not in used]:
        model.graph.node.remove(node)


def first_convolutions(model: onnx.ModelProto, count: int) -> list[str]:
    """Names of the first convolutions, the activations behind them, and what adds two of them."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"][:count]
    outputs = {name for node in convolutions for name in node.output}
    behind = [n for n in model.graph.node if n.op_type in ("Clip", "Relu", "Add") and outputs & set(n.input)]
    return [node.name for node in [*convolutions, *behind]]


def normalisation_tail(model: onnx.ModelProto) -> list[str]:
    """Names of the last nodes, from the head's LayerNormalization on: the L2 norm must not be rounded to 11 bits."""
    nodes = list(model.graph.node)
    last_norm = max((i for i, node in enumerate(nodes) if node.op_type == "LayerNormalization"), default=len(nodes))
    return [node.name for node in nodes[last_norm:]]


def write_int8(fp32: Path, int8: Path, calibration: np.ndarray | None) -> None:
    """8-bit weights; `calibration (N, 3, H, W)` is needed by a tower with convolutions beyond its patches."""
    if is_convolutional(onnx.load(fp32)):
        if calibration is None:
            raise MiniClipError(
                "int8 of a convolutional tower needs the run's calibration.npy; train again, or leave int8 out"
            )
        _write_static(fp32, int8, calibration)
    else:
        _write_blockwise(fp32, int8)


def is_convolutional(model: onnx.ModelProto) -> bool:
    """Whether the tower is more than one convolution deep: a transformer has one, which cuts the patches."""
    return bool(sum(node.op_type == "Conv" for node in model.graph.node) > 1)


def _write_static(fp32: Path, int8: Path, calibration: np.ndarray) -> None:
    """Per-channel signed weights, unsigned activations (ReLU6 gives no negatives), minimum and maximum as the range."""
    with quiet_tools(), tempfile.TemporaryDirectory() as tmp:
        prepared, quantised = Path(tmp) / "prepared.onnx", Path(tmp) / "quantised.onnx"
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        fp32_model = onnx.load(prepared)
        quantize_static(
            prepared,
            quantised,
            PictureReader(calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv", "Clip", "Add", "Relu", "MaxPool"],
            nodes_to_exclude=first_convolutions(fp32_model, FIRST_IN_FP32["int8"]),
        )
        model = onnx.load(quantised)
        _refit_standardisation(model, fp32_model, calibration)
    _save(model, int8)


def _refit_standardisation(int8: onnx.ModelProto, fp32: onnx.ModelProto, calibration: np.ndarray) -> None:
    """Give the head's standardisation the mean and deviation that the 8-bit features have.

    Rounding shifts each feature a little; what is shifted for all pictures alike can be taken back at no cost (bias
    correction: M. Nagel et al., "Data-Free Quantization", ICCV 2019, section 4.2, here at the end of the tower).
    """
    constants = {item.name: item for item in int8.graph.initializer}
    names = {"Sub": "head.feature_mean", "Div": "head.feature_std"}
    steps = {n.op_type: n for n in int8.graph.node if names.get(n.op_type) in n.input[1:]}
    if len(steps) < len(names):  # a head that was never fitted has nothing to subtract
        return
    subtraction, division = steps["Sub"], steps["Div"]
    ours, theirs = (_intermediate(model, subtraction.input[0], calibration) for model in (int8, fp32))
    spread = theirs.std(axis=0)
    floor = 0.1 * float(np.median(spread)) + 1e-6  # a feature that hardly varies in so few pictures says nothing
    ratio = (ours.std(axis=0) + floor) / (spread + floor)
    mean, std = (numpy_helper.to_array(constants[f"head.feature_{name}"]) for name in ("mean", "std"))
    refitted = {"mean": ours.mean(axis=0) + (mean - theirs.mean(axis=0)) * ratio, "std": std * ratio}
    for node, (name, values) in zip((subtraction, division), refitted.items(), strict=True):
        # under names of their own: the exporter lets equal constants of other layers share the old ones
        node.input[1] = f"head.refitted_{name}"
        int8.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.input[1]))
    used = {name for node in int8.graph.node for name in node.input}
    for item in [item for item in int8.graph.initializer if item.name not in used]:
        int8.graph.initializer.remove(item)


def _intermediate(model: onnx.ModelProto, name: str, pixel_values: np.ndarray) -> np.ndarray:
    """A tensor inside the graph, for all calibration pictures: (N, d)."""
    opened = onnx.ModelProto.FromString(model.SerializeToString())
    opened.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(opened.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([name], {"pixel_values": batch})[0] for batch in in_batches(pixel_values)])


def _write_blockwise(fp32: Path, int8: Path) -> None:
    """Matrix products with 8-bit weights, a scale for every 32 of them; activations are rounded in the same blocks.

    A transformer's activations have outliers that one scale a tensor (onnxruntime's dynamic quantisation) cannot serve:
    smallest row cosine on Flickr8k's dev captions 0.983, and 0.9993 this way.
    """
    quantiser = MatMulNBitsQuantizer(
        onnx.load(fp32), bits=8, block_size=WEIGHT_BLOCK, is_symmetric=True, accuracy_level=INT8_ACTIVATIONS
    )
    with quiet_tools():
        quantiser.process()
    model = quantiser.model.model
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


def _save(model: onnx.ModelProto, path: Path) -> None:
    with quiet_tools():  # the converters append their casts at the end, which the standard forbids
        OnnxModel(model).topological_sort(is_deterministic=True)
    forget_origin(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
