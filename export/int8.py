"""fp32 ONNX file -> int8 for CPUs: 8-bit weights, 8-bit products, float32 in and out.

Convolutions are quantised statically (activations by ranges seen on calibration data, Q/DQ pairs; B. Jacob et al.,
CVPR 2018): scales found on the fly gain nothing there. For the matrix products of a transformer, fixed scales and
scales on the fly are both tried on half of the calibration data, and the other half decides. Tables are kept as 8-bit
rows, and so are heads, computed in float32, wherever scales are fixed.
"""

import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .gptq import round_weights
from .graph import (
    Feeds,
    drop_unused,
    embed,
    first_convolutions,
    is_convolutional,
    look_inside,
    quiet_tools,
    save_graph,
)
from .smooth_quant import scale_outliers

TABLE_ROWS = 2048  # smaller tables (positions, segments) are not worth it
# The first convolutions see raw pixels, whose range low precision serves badly: most of the loss, little of the time.
FIRST_IN_FP32 = 3
CONVOLUTION_OPERATORS = ["Conv", "Clip", "Add", "Relu", "MaxPool"]


class FeedReader(CalibrationDataReader):
    """Hands feeds to onnxruntime's calibrator."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def write_int8(fp32: Path, int8: Path, feeds: Feeds) -> str:
    """Quantise on `feeds`, calibration data of the tower; returns a line about how, for the user."""
    model = onnx.load(fp32)
    quantised, how = quantise(model, feeds)
    save_graph(quantised, int8)
    return how


def quantise(model: onnx.ModelProto, feeds: Feeds, exclude: Collection[str] = ()) -> tuple[onnx.ModelProto, str]:
    """An int8 graph and how it was made; nodes named in `exclude` stay in fp32."""
    measured, judged = feeds[::2], feeds[1::2] or feeds  # of convolutional towers one way is made, and none is judged
    with quiet_tools():
        if is_convolutional(model):
            kept = {*exclude, *first_convolutions(model, FIRST_IN_FP32)}
            rounded = round_weights(model, measured, kept)
            return _finished(_static(rounded, measured, exclude), model, measured, exclude), "fixed scales"
        measured, judged = _singly(measured), _singly(judged)
        rounded = round_weights(scale_outliers(model, measured), measured, exclude)
        expected = embed(model, judged)
        tried = []
        for how, quantised in (
            ("scales on the fly", _dynamic(rounded, exclude)),
            ("fixed scales", _static(rounded, measured, exclude)),
        ):
            quantised = _finished(quantised, model, measured, exclude)
            cosine = (embed(quantised, judged) * expected).sum(axis=1)
            worst = float(np.nan_to_num(np.percentile(cosine, 1), nan=-1))
            tried.append((round(worst, 3), how, quantised))
        # of equals the first: what is larger than calibration data ever was, fixed scales would cut off
        tried.sort(key=lambda entry: -entry[0])
        (best, how, quantised), (other, other_how, _) = tried
        return quantised, f"{how} (cosine to fp32, 1st percentile: {best:.3f}; {other_how}: {other:.3f})"


def _singly(feeds: Feeds) -> Feeds:
    """Images one by one, as encoders run them on a CPU: scales on the fly are then found as they will be."""
    if "pixel_values" not in feeds[0]:
        return feeds
    return [{"pixel_values": image[None]} for feed in feeds for image in feed["pixel_values"]]


def _dynamic(model: onnx.ModelProto, exclude: Collection[str]) -> onnx.ModelProto:
    """Matrix products with a scale for the activations found on the fly, and one a column for the weights."""
    with tempfile.TemporaryDirectory() as tmp:
        source, target = _written(model, tmp), Path(tmp) / "quantised.onnx"
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*exclude, *(f"{name}_MatMul" for name in exclude)],  # what it makes of a Gemm
        )
        return onnx.load(target)


def _static(model: onnx.ModelProto, feeds: Feeds, exclude: Collection[str]) -> onnx.ModelProto:
    """Per-channel signed weights, unsigned activations (ReLU6 gives no negatives), minimum and maximum as the range."""
    convolutional = is_convolutional(model)
    with tempfile.TemporaryDirectory() as tmp:
        source, target = _written(model, tmp), Path(tmp) / "quantised.onnx"
        if convolutional:
            prepared = Path(tmp) / "prepared.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            source = prepared
            exclude = {*exclude, *first_convolutions(onnx.load(prepared), FIRST_IN_FP32)}
        quantize_static(
            source,
            target,
            FeedReader(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=CONVOLUTION_OPERATORS if convolutional else ["MatMul"],
            nodes_to_exclude=list(exclude),
            # what follows a transformer's products (bias, norm, softmax) wants their results in float32
            extra_options={} if convolutional else {"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        return onnx.load(target)


def _written(model: onnx.ModelProto, folder: str) -> Path:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.value_info[:]  # the shapes of weights that were transposed since stop the quantiser
    path = Path(folder) / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _finished(int8: onnx.ModelProto, fp32: onnx.ModelProto, feeds: Feeds, exclude: Collection[str]) -> onnx.ModelProto:
    _refit_standardisation(int8, fp32, feeds)
    _store_in_8_bits(int8, exclude)
    return int8


def _refit_standardisation(int8: onnx.ModelProto, fp32: onnx.ModelProto, feeds: Feeds) -> None:
    """Give the head's standardisation the mean and deviation that the 8-bit features have.

    Rounding shifts each feature a little; what is shifted for all inputs alike can be taken back at no cost (bias
    correction: M. Nagel et al., "Data-Free Quantization", ICCV 2019, section 4.2, here at the end of the tower).
    """
    constants = {item.name: item for item in int8.graph.initializer}
    names = {"Sub": "head.feature_mean", "Div": "head.feature_std"}
    steps = {n.op_type: n for n in int8.graph.node if names.get(n.op_type) in n.input[1:]}
    if len(steps) < len(names):  # a head that was never fitted has nothing to subtract
        return
    subtraction, division = steps["Sub"], steps["Div"]
    ours, theirs = (
        np.concatenate([features for (features,) in look_inside(model, [subtraction.input[0]], feeds)])
        for model in (int8, fp32)
    )
    spread = theirs.std(axis=0)
    floor = 0.1 * float(np.median(spread)) + 1e-6  # a feature that hardly varies in so few inputs says nothing
    ratio = (ours.std(axis=0) + floor) / (spread + floor)
    mean, std = (numpy_helper.to_array(constants[f"head.feature_{name}"]) for name in ("mean", "std"))
    refitted = {"mean": ours.mean(axis=0) + (mean - theirs.mean(axis=0)) * ratio, "std": std * ratio}
    for node, (name, values) in zip((subtraction, division), refitted.items(), strict=True):
        # under names of their own: the exporter lets equal constants of other layers share the old ones
        node.input[1] = f"head.refitted_{name}"
        int8.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.input[1]))
    drop_unused(int8)


def _store_in_8_bits(model: onnx.ModelProto, exclude: Collection[str]) -> None:
    """Keep word table and heads as int8 rows with a scale each; onnxruntime unpacks the heads when it opens the file.

    With scales on the fly the quantiser has taken the heads' products already, and only the table is left.

    The quantiser knows one scale for a whole table, which a few rare words with large weights would set for all. The
    heads are a thousandth of the arithmetic, but a good part of a small model's file.
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
    _replace(
        graph,
        node,
        [
            helper.make_node("Gather", [f"{table.name}_rows", ids], [f"{output}_rows"], name=f"{node.name}_rows"),
            helper.make_node("Gather", [f"{table.name}_scales", ids], [f"{output}_scales"], name=f"{node.name}_scales"),
            helper.make_node("Cast", [f"{output}_rows"], [f"{output}_float"], name=f"{node.name}_cast", to=1),
            helper.make_node("Mul", [f"{output}_float", f"{output}_scales"], [output], name=f"{node.name}_scale"),
        ],
    )


def _store_head(graph: onnx.GraphProto, node: onnx.NodeProto, weight: TensorProto) -> None:
    """Gemm with a float weight -> Cast and Mul of constants before it, a scale for each of its outputs."""
    name = weight.name
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    _add_rows(graph, name, numpy_helper.to_array(weight), axis=1 if transposed else 0)
    node.input[1] = f"{name}_unpacked"
    unpacking = [
        helper.make_node("Cast", [f"{name}_rows"], [f"{name}_float"], name=f"{node.name}_cast", to=1),
        helper.make_node("Mul", [f"{name}_float", f"{name}_scales"], [node.input[1]], name=f"{node.name}_scale"),
    ]
    _replace(graph, node, [*unpacking, node])


def _add_rows(graph: onnx.GraphProto, name: str, values: np.ndarray, axis: int) -> None:
    scales = np.abs(values).max(axis=axis, keepdims=True) / 127 + 1e-12
    rows = np.clip(np.round(values / scales), -127, 127).astype(np.int8)
    graph.initializer.append(numpy_helper.from_array(rows, f"{name}_rows"))
    graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales"))


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, steps: list[onnx.NodeProto]) -> None:
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, step in enumerate(steps):
        graph.node.insert(place + offset, step)
