"""Check after an export that every precision embeds and retrieves the run's calibration images like fp32.

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
from miniclip.inference.precision import PRECISIONS
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
    a number. For int8, the error names the set of layers that changes recall most when it alone is quantised. A
    precision also fails if its embeddings are less similar to fp32 than `miniclip.inference.precision` requires, and
    fp16 if a tower computes values above the largest number of half precision.
    """
    for tower in TOWERS if "fp16" in precisions else ():
        # a recall measured on a CPU does not show this: it computes fp16 graphs in float32
        largest = largest_value(onnx.load(folder / onnx_name(tower, "fp32")), feeds[tower][:1])
        if not largest <= LARGEST_FP16:
            raise MiniClipError(
                f"fp16: the {tower} tower computes values of {largest:.0f}, above the fp16 limit {LARGEST_FP16}; "
                f"{_advice(precisions, 'fp16')}"
            )

    def embeds(precision: str) -> dict[str, np.ndarray]:
        return {tower: embed(folder / onnx_name(tower, precision), feeds[tower]) for tower in TOWERS}

    def mean_recall(embeds: dict[str, np.ndarray]) -> float:
        if not all(np.isfinite(values).all() for values in embeds.values()):
            return float("nan")
        return retrieval_recalls(embeds["text"], embeds["vision"], image_of_caption)["mean_recall"]

    allowed = max_recall_change(image_of_caption)
    expected = embeds("fp32")
    recalls = {"fp32": mean_recall(expected)}
    for precision in [p for p in precisions if p != "fp32"]:
        found = embeds(precision)
        recalls[precision] = mean_recall(found)
        if not abs(recalls[precision] - recalls["fp32"]) <= allowed:  # also true for NaN
            blame = ""
            if precision == "int8":
                changes = {
                    (tower, layers): abs(mean_recall({**expected, tower: own}) - recalls["fp32"])
                    for tower in TOWERS
                    for layers, own in _one_set_at_a_time(folder / onnx_name(tower, "fp32"), feeds[tower])
                }
                (tower, layers), most = max(changes.items(), key=lambda entry: np.nan_to_num(entry[1], nan=np.inf))
                blame = f" (most by the {tower} tower's {layers}: alone {most:.3f})"
            raise MiniClipError(
                f"{precision}: mean recall on the run's calibration images is {recalls[precision]:.3f} and "
                f"{recalls['fp32']:.3f} in fp32, more than {allowed:.2g} apart{blame}; {_advice(precisions, precision)}"
            )
        least = PRECISIONS[precision].min_cosine
        for tower in TOWERS:  # an index may be searched in another precision than it was made in
            cosine = float(np.percentile((found[tower] * expected[tower]).sum(axis=1), 1))
            if not cosine >= least:
                raise MiniClipError(
                    f"{precision}: the {tower} tower's cosine to fp32 is {cosine:.3f} (1st percentile of the run's "
                    f"calibration data), but must be at least {least:g}; {_advice(precisions, precision)}"
                )
    return recalls


def _advice(precisions: list[str], refused: str) -> str:
    others = " ".join(p for p in precisions if p != refused) or "fp32"
    return f"leave it out with --precision {others}"


def max_recall_change(image_of_caption: np.ndarray) -> float:
    """The allowed change of mean recall. For fewer images it is larger, by one over the square root of their number."""
    return MAX_RECALL_CHANGE * max(1.0, math.sqrt(IMAGES / len(np.unique(image_of_caption))))


def _one_set_at_a_time(path: Path, feeds: Feeds) -> list[tuple[str, np.ndarray]]:
    """For each set of layers, the embeddings with only that set in 8 bits."""
    model = onnx.load(path)
    sets = layer_sets(model)
    names = {node.name for node in model.graph.node}
    return [(name, embed(quantise(model, feeds, names - nodes)[0], feeds)) for name, nodes in sets.items()]


def largest_value(model: onnx.ModelProto, feeds: Feeds) -> float:
    """The largest absolute value inside the graph."""
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    floats = {item.name for item in inferred if item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    names = [name for node in model.graph.node for name in node.output if name in floats and node.op_type in ARITHMETIC]
    return max(float(np.abs(values).max()) for tensors in look_inside(model, names, feeds) for values in tensors)
