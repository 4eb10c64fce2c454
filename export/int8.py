"""fp32 ONNX file -> int8 for CPUs: 8-bit weights, 8-bit products, float32 in and out.

Convolutions are quantised statically: the ranges of activations are measured on calibration data and stored as Q/DQ
pairs (B. Jacob et al., CVPR 2018). For the matrix products of a transformer, both static and dynamic quantisation are
fitted to half of the calibration data, and the held-back half decides between them. The held-back half also decides
which layers stay in fp32 (`export.fp32_layers`) and which weights take 7 bits (`export.weight_bits`). Word tables and
heads are stored as 8-bit rows and computed in float32 (`export.int8_storage`).
"""

import copy
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from miniclip.models.onnx_graph import quiet_tools

from .activation_ranges import fit_ranges
from .fp32_layers import MIN_COSINE, layers_to_keep
from .gptq import groups_of, input_factors, rounded_weights, with_weights
from .graph import Feeds, drop_unused, embed, first_convolutions, is_convolutional, look_inside, save_graph
from .int8_storage import store_in_8_bits
from .layer_sets import layer_sets
from .smooth_quant import scale_outliers
from .weight_bits import LayerBits, choose_bits, layer_work, some_of, with_7_bits

FIRST_IN_FP32 = 3  # convolutions: they read raw pixels, cause most of the error, and take little time
# additions stay in float32: otherwise each residual block would round the sum again
CONVOLUTION_OPERATORS = ["Conv", "Clip", "Relu", "MaxPool"]
DYNAMIC, STATIC = "dynamic quantisation", "static quantisation"


class FeedReader(CalibrationDataReader):
    """Passes feeds to onnxruntime's calibrator."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@dataclass(frozen=True)
class Tower:
    """A tower in fp32, and all data that do not depend on which layers are quantised."""

    model: onnx.ModelProto
    source: onnx.ModelProto  # the same function, with its outliers scaled down
    factors: dict[str, np.ndarray]  # of `export.gptq`
    rounded: dict[str, np.ndarray]  # its 8-bit weights, by layer
    measured: Feeds  # calibration data to which scales and weights are fitted
    judged: Feeds  # held-back calibration data
    expected: np.ndarray  # embeddings of the held-back data


@dataclass(frozen=True)
class Quantised:
    """A tower in 8 bits. `unfinished` lacks the last steps: 8-bit tables and heads, and refitted standardisation."""

    graph: onnx.ModelProto
    unfinished: onnx.ModelProto
    how: str  # for the user: static or dynamic, and the cosine to fp32
    cosine: float  # to fp32 on held-back data, 1st percentile


def write_int8(fp32: Path, int8: Path, feeds: Feeds) -> tuple[str, list[LayerBits]]:
    """Quantise a tower with its calibration data `feeds`.

    Returns a line for the user that describes the result, and the bits of each layer.
    """
    with quiet_tools():
        tower = _prepare(onnx.load(fp32), feeds)
        quantised = _quantise(tower, ())
        in_8_bits, kept = quantised.cosine, {}
        if in_8_bits < MIN_COSINE:
            kept = layers_to_keep(tower.model, lambda exclude: _quantise(tower, exclude).cosine)
        exclude = {name for names in kept.values() for name in names}
        if kept:
            quantised = _quantise(tower, exclude)
        graph, layers = _narrow(tower, quantised, exclude)
        all_kept = bool(kept) and len(kept) == len(layer_sets(tower.model))
    save_graph(graph, int8)
    if all_kept:
        lost = f"in 8 bits, the 1st percentile of cosines was {in_8_bits:.3f}; largest losses: {', '.join([*kept][:3])}"
        return f"all layers stay in fp32 ({lost})", layers
    narrow = sum(layer.bits == 7 for layer in layers)
    how = f"{quantised.how}; weights of {narrow} of {len(layers)} layers in 7 bits"
    return how + (f"; kept in fp32: {', '.join(kept)}" if kept else ""), layers


def quantise(model: onnx.ModelProto, feeds: Feeds, exclude: Collection[str] = ()) -> tuple[onnx.ModelProto, str]:
    """An int8 graph with 8-bit weights, and its description; nodes named in `exclude` stay in fp32."""
    with quiet_tools():
        quantised = _quantise(_prepare(model, feeds), exclude)
    return quantised.graph, quantised.how


def _prepare(model: onnx.ModelProto, feeds: Feeds) -> Tower:
    measured, judged = feeds[::2], feeds[1::2] or feeds
    if is_convolutional(model):
        source, without = model, first_convolutions(model, FIRST_IN_FP32)
    else:
        measured, judged = _singly(measured), _singly(judged)
        source, without = scale_outliers(model, measured), []
    factors = input_factors(source, measured, without)
    rounded = rounded_weights(source, factors, 8)
    return Tower(model, source, factors, rounded, measured, judged, embed(model, judged))


def _quantise(tower: Tower, exclude: Collection[str]) -> Quantised:
    rounded = with_weights(tower.source, {name: own for name, own in tower.rounded.items() if name not in exclude})
    tried = []
    # on a tie prefer dynamic scales: static ones clip activations beyond the calibration range
    for how in (STATIC,) if is_convolutional(tower.model) else (DYNAMIC, STATIC):
        if how == DYNAMIC:
            unfinished = _dynamic(rounded, exclude)
        else:
            unfinished = _static(rounded, tower.measured, exclude)
            fit_ranges(unfinished, rounded, tower.measured)
        graph = _finished(unfinished, tower, exclude)
        tried.append((round(_worst_cosine(tower, graph), 3), how, graph, unfinished))
    tried.sort(key=lambda entry: -entry[0])
    cosine, how, graph, unfinished = tried[0]
    others = "".join(f"; {other}: {worst:.3f}" for worst, other, *_ in tried[1:])
    return Quantised(graph, unfinished, f"{how} (cosine to fp32, 1st percentile: {cosine:.3f}{others})", cosine)


def _worst_cosine(tower: Tower, graph: onnx.ModelProto) -> float:
    """Cosine to fp32 on held-back data, 1st percentile; -1 if an embedding is not finite."""
    cosines = (embed(graph, tower.judged) * tower.expected).sum(axis=1)
    return float(np.nan_to_num(np.percentile(cosines, 1), nan=-1))


def _narrow(tower: Tower, quantised: Quantised, exclude: Collection[str]) -> tuple[onnx.ModelProto, list[LayerBits]]:
    """The graph with 7-bit weights in layers where they cost little, and the bits of each layer."""
    # depthwise convolutions keep 8 bits: 7 bits hurt them most and do not make them faster
    depthwise = {node.name for node in tower.source.graph.node if node.op_type == "Conv" and groups_of(node) > 1}
    seven = rounded_weights(
        tower.source, {name: factor for name, factor in tower.factors.items() if name not in depthwise}, 7
    )
    work = layer_work(tower.source, seven)
    some = some_of(tower.judged, work)
    expected = embed(tower.model, some)

    def error(graph: onnx.ModelProto) -> float:
        return float(1 - (embed(graph, some) * expected).sum(axis=1).mean())

    layers = choose_bits(quantised.graph, seven, work, error)
    chosen = {layer.name: seven[layer.name] for layer in layers if layer.bits == 7}
    graph = _finished(with_7_bits(quantised.unfinished, chosen), tower, exclude)
    if _worst_cosine(tower, graph) < MIN_COSINE:  # the change from 8 to 7 bits may cross the limit
        return quantised.graph, [replace(layer, bits=8) for layer in layers]
    return graph, layers


def _singly(feeds: Feeds) -> Feeds:
    """Batches of one image, as in search on a CPU, so that dynamic scales depend on a single image."""
    if "pixel_values" not in feeds[0]:
        return feeds
    return [{"pixel_values": image[None]} for feed in feeds for image in feed["pixel_values"]]


def _dynamic(model: onnx.ModelProto, exclude: Collection[str]) -> onnx.ModelProto:
    """Dynamic quantisation of matrix products: one scale per input tensor, and one per column of the weights."""
    with tempfile.TemporaryDirectory() as tmp:
        source, target = _written(model, tmp), Path(tmp) / "quantised.onnx"
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            # the quantiser renames the product of a Gemm
            nodes_to_exclude=[*exclude, *(f"{name}_MatMul" for name in exclude)],
        )
        return onnx.load(target)


def _static(model: onnx.ModelProto, feeds: Feeds, exclude: Collection[str]) -> onnx.ModelProto:
    """Static quantisation: signed weights per channel, and unsigned activations from their minimum to their maximum."""
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
            op_types_to_quantize=[*(CONVOLUTION_OPERATORS if convolutional else ()), "MatMul"],
            nodes_to_exclude=list(exclude),
            # the operators after matrix products (bias, norm, softmax) use float32
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"], "MatMulConstBOnly": True},
        )
        return onnx.load(target)


def _written(model: onnx.ModelProto, folder: str) -> Path:
    model = copy.deepcopy(model)
    del model.graph.value_info[:]  # these shapes are outdated once weights are transposed: the quantiser refuses them
    path = Path(folder) / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _finished(int8: onnx.ModelProto, tower: Tower, exclude: Collection[str]) -> onnx.ModelProto:
    int8 = copy.deepcopy(int8)
    _refit_standardisation(int8, tower.model, tower.measured)
    store_in_8_bits(int8, exclude)
    return int8


def _refit_standardisation(int8: onnx.ModelProto, fp32: onnx.ModelProto, feeds: Feeds) -> None:
    """Give the head's standardisation the mean and deviation of the 8-bit features.

    Rounding shifts each feature slightly. A shift that is equal for all inputs can be removed at no cost (bias
    correction: M. Nagel et al., "Data-Free Quantization", ICCV 2019, section 4.2; here at the end of the tower).
    """
    constants = {item.name: item for item in int8.graph.initializer}
    names = {"Sub": "head.feature_mean", "Div": "head.feature_std"}
    steps = {n.op_type: n for n in int8.graph.node if names.get(n.op_type) in n.input[1:]}
    if len(steps) < len(names):  # a head that was never fitted has no standardisation
        return
    subtraction, division = steps["Sub"], steps["Div"]
    ours, theirs = (
        np.concatenate([features for (features,) in look_inside(model, [subtraction.input[0]], feeds)])
        for model in (int8, fp32)
    )
    spread = theirs.std(axis=0)
    floor = 0.1 * float(np.median(spread)) + 1e-6  # for a feature that hardly varies, the ratio would be noise
    ratio = (ours.std(axis=0) + floor) / (spread + floor)
    mean, std = (numpy_helper.to_array(constants[f"head.feature_{name}"]) for name in ("mean", "std"))
    refitted = {"mean": ours.mean(axis=0) + (mean - theirs.mean(axis=0)) * ratio, "std": std * ratio}
    for node, (name, values) in zip((subtraction, division), refitted.items(), strict=True):
        # new names, because other layers may share the old constants
        node.input[1] = f"head.refitted_{name}"
        int8.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.input[1]))
    drop_unused(int8)
