"""Choose activation ranges with the smallest error, instead of minimum and maximum.

In: a statically quantised graph, the float graph that it was made from, calibration data. Out: the graph with other
scales. If a few extreme values determine the range of a tensor, all other values get coarse steps. So several smaller
ranges are tried, and the one with the smallest mean squared error of sampled values is used (R. Banner et al., "Post
training 4-bit quantization", NeurIPS 2019, section 3; here by trial instead of by formula).
"""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from .graph import Feeds, Wiring, run_inside

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the largest and the smallest value in the calibration data
SAMPLED_VALUES = 4096  # of each tensor and batch


def fit_ranges(int8: onnx.ModelProto, model: onnx.ModelProto, feeds: Feeds) -> None:
    """Set the scale and zero point of every activation of `int8`, in place.

    The step of a convolution's bias is the input scale times the weight scale, so a new input scale needs a new bias.
    """
    known = Wiring(int8.graph)
    made = {name for node in model.graph.node for name in node.output}
    names = sorted(
        {
            node.input[0]
            for node in int8.graph.node
            # a tensor behind an operator that changes no value, such as MaxPool, shares the scale of another tensor
            if node.op_type == "QuantizeLinear" and node.input[1] == f"{node.input[0]}_scale" and node.input[0] in made
        }
    )
    growth: dict[str, float] = {}
    for name, values in zip(names, _samples(model, names, feeds), strict=True):
        scale, zero = (known.constants[f"{name}_{part}"] for part in ("scale", "zero_point"))
        before, offset = (float(numpy_helper.to_array(item)) for item in (scale, zero))
        step, point = _best_range(values, -offset * before, (255 - offset) * before)
        growth[scale.name] = step / before
        replace_constant(scale, np.asarray(step, dtype=np.float32))
        replace_constant(zero, np.asarray(point, dtype=np.uint8))
    for node in int8.graph.node:
        inputs = [known.made_by(name, "DequantizeLinear") for name in node.input]
        if node.op_type == "Conv" and len(inputs) > 2 and inputs[0] and inputs[2] and inputs[0].input[1] in growth:
            rescale_bias(known, inputs[2], np.asarray(growth[inputs[0].input[1]]))


def rescale_bias(known: Wiring, dequantised: onnx.NodeProto, growth: np.ndarray) -> None:
    """Requantise a convolution's bias with steps that are `growth` times as large.

    `dequantised` is the node that reads the bias.
    """
    ints, step = (known.constants[name] for name in dequantised.input[:2])
    replace_constant(ints, np.round(numpy_helper.to_array(ints) / growth).astype(np.int32))
    replace_constant(step, (numpy_helper.to_array(step) * growth).astype(np.float32))


def replace_constant(item: TensorProto, values: np.ndarray) -> None:
    """Replace the values of a constant of the graph."""
    item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), item.name))


def _samples(model: onnx.ModelProto, names: list[str], feeds: Feeds) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    samples: list[list[np.ndarray]] = [[] for _ in names]
    for tensors in run_inside(model, names, feeds):
        for sample, values in zip(samples, tensors, strict=True):
            sample.append(values.ravel()[generator.integers(0, values.size, min(SAMPLED_VALUES, values.size))])
    return [np.concatenate(sample) for sample in samples]


def _best_range(values: np.ndarray, low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of the range within `low` and `high` that has the smallest squared error."""
    tried = []
    for lower in SHARES if low < 0 else (1.0,):
        for upper in SHARES if high > 0 else (1.0,):
            step = (upper * high - lower * low) / 255
            point = int(np.clip(np.round(-lower * low / step), 0, 255))
            rounded = (np.clip(np.round(values / step) + point, 0, 255) - point) * step
            tried.append((float(np.square(rounded - values).mean()), step, point))
    _, step, point = min(tried)
    return step, point
