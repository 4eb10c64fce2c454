"""Check after an export that every precision retrieves the run's calibration images as well as fp32.

In: the exported files and the run's calibration data. Out: mean recalls, or one error that names the layers at fault.
A thousand captions measure recall coarsely, so the bound is wide; `export.benchmark` measures on whole splits.
"""

import math
from pathlib import Path

import numpy as np
import onnx

from miniclip.errors import MiniClipError
from miniclip.evaluation.metrics import retrieval_recalls
from miniclip.inference.layouts import TOWERS, onnx_name
from miniclip.models.calibration_set import IMAGES

from .graph import Feeds, embed, look_inside
from .int8 import quantise
from .layer_sets import layer_sets

MAX_RECALL_CHANGE = 0.03  # of mean recall, for the full number of calibration images of a run
LARGEST_FP16 = 65_504
ARITHMETIC = ("MatMul", "Gemm", "Conv", "Add", "Sub", "Mul")


def check_recall(
    folder: Path, precisions: list[str], feeds: dict[str, Feeds], image_of_caption: np.ndarray
) -> dict[str, float]:
    """Mean recall by precision, including fp32. `feeds` are the inputs by tower.

    Errors: `MiniClipError` when a precision's mean recall differs from fp32 by more than `max_recall_change`, or is not
    a number. For int8, the error names the set of layers that changes recall most when it alone is quantised. fp16 also
    fails if a tower computes values above the largest number of half precision.
    """
    for tower in TOWERS if "fp16" in precisions else ():
        # a recall measured on a CPU does not show this: it computes fp16 graphs in float32
        largest = largest_value(onnx.load(folder / onnx_name(tower, "fp32")), feeds[tower][:1])
        if not largest <= LARGEST_FP16:
            raise MiniClipError(
                f"fp16: the {tower} tower computes values of {largest:.0f}, above the fp16 limit {LARGEST_FP16}; "
                f"leave it out with --precision {' '.join(p for p in precisions if p != 'fp16') or 'fp32'}"
            )

    def embeds(precision: str) -> dict[str, np.ndarray]:
        return {tower: embed(folder / onnx_name(tower, precision), feeds[tower]) for tower in TOWERS}

    def mean_recall(image_embeds: np.ndarray, text_embeds: np.ndarray) -> float:
        if not (np.isfinite(image_embeds).all() and np.isfinite(text_embeds).all()):
            return float("nan")
        return retrieval_recalls(text_embeds, image_embeds, image_of_caption)["mean_recall"]

    allowed = max_recall_change(image_of_caption)
    expected = embeds("fp32")
    recalls = {"fp32": mean_recall(expected["vision"], expected["text"])}
    for precision in [p for p in precisions if p != "fp32"]:
        recalls[precision] = mean_recall(*(embeds(precision)[tower] for tower in TOWERS))
        change = abs(recalls[precision] - recalls["fp32"])
        if change <= allowed:  # false for NaN
            continue
        blame = ""
        if precision == "int8":
            moved = {
                (tower, layers): abs(mean_recall(*({**expected, tower: own}[t] for t in TOWERS)) - recalls["fp32"])
                for tower in TOWERS
                for layers, own in _one_set_at_a_time(folder / onnx_name(tower, "fp32"), feeds[tower])
            }
            (tower, layers), most = max(moved.items(), key=lambda entry: np.nan_to_num(entry[1], nan=np.inf))
            blame = f" (most by the {tower} tower's {layers}: alone {most:.3f})"
        others = " ".join(p for p in precisions if p != precision) or "fp32"
        raise MiniClipError(
            f"{precision}: mean recall on the run's calibration images is {recalls[precision]:.3f} and "
            f"{recalls['fp32']:.3f} in fp32, more than {allowed:.2g} apart{blame}; leave it out with "
            f"--precision {others}"
        )
    return recalls


def max_recall_change(image_of_caption: np.ndarray) -> float:
    """The allowed change of mean recall. It grows with chance as images get fewer, by one over their square root."""
    return MAX_RECALL_CHANGE * max(1.0, math.sqrt(IMAGES / len(np.unique(image_of_caption))))


def _one_set_at_a_time(path: Path, feeds: Feeds) -> list[tuple[str, np.ndarray]]:
    """For each set of layers, the embeddings with only that set in 8 bits."""
    model = onnx.load(path)
    sets = layer_sets(model)
    names = {node.name for node in model.graph.node}
    return [(name, embed(quantise(model, feeds, names - nodes)[0], feeds)) for name, nodes in sets.items()]


def largest_value(model: onnx.ModelProto, feeds: Feeds) -> float:
    """The largest absolute value inside the graph, which half precision must be able to represent."""
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    floats = {item.name for item in inferred if item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    names = [name for node in model.graph.node for name in node.output if name in floats and node.op_type in ARITHMETIC]
    return max(float(np.abs(values).max()) for tensors in look_inside(model, names, feeds) for values in tensors)
