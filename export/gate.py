"""The gate of an export: no precision may retrieve the run's calibration pictures otherwise than fp32 does.

In: the exported files and the run's calibration data. Out: nothing, or one error that names the layers to blame.
A thousand captions are a coarse measure, so the bound is wide; `export.benchmark` measures on whole splits.
"""

import re
from pathlib import Path

import numpy as np
import onnx

from export.graph import Feeds, embed
from export.int8 import quantise
from miniclip.bundle import TOWERS, onnx_name
from miniclip.errors import MiniClipError
from miniclip.metrics import retrieval_recalls

MOST_RECALL_CHANGE = 0.03  # of mean recall on the calibration pictures

Recall = tuple[float, float]  # mean recall, mean cosine to fp32


def check_recall(
    folder: Path, precisions: list[str], feeds: dict[str, Feeds], image_of_caption: np.ndarray
) -> dict[str, float]:
    """Mean recall by precision, fp32 among them; `feeds` by tower.

    Errors: `MiniClipError` when a precision's mean recall is more than `MOST_RECALL_CHANGE` from that of fp32, or not a
    number; for int8 with the set of layers that moves it most when they alone are quantised.
    """

    def embeds(precision: str) -> dict[str, np.ndarray]:
        return {tower: embed(folder / onnx_name(tower, precision), feeds[tower]) for tower in TOWERS}

    def mean_recall(image_embeds: np.ndarray, text_embeds: np.ndarray) -> float:
        if not (np.isfinite(image_embeds).all() and np.isfinite(text_embeds).all()):
            return float("nan")
        return retrieval_recalls(text_embeds, image_embeds, image_of_caption)["mean_recall"]

    expected = embeds("fp32")
    recalls = {"fp32": mean_recall(expected["vision"], expected["text"])}
    for precision in [p for p in precisions if p != "fp32"]:
        recalls[precision] = mean_recall(*(embeds(precision)[tower] for tower in TOWERS))
        change = abs(recalls[precision] - recalls["fp32"])
        if change <= MOST_RECALL_CHANGE:  # a NaN is not
            continue
        blame = ""
        if precision == "int8":
            moved = {
                (tower, layers): abs(mean_recall(*({**expected, tower: own}[t] for t in TOWERS)) - recalls["fp32"])
                for tower in TOWERS
                for layers, own in _one_set_at_a_time(folder / onnx_name(tower, "fp32"), feeds[tower])
            }
            (tower, layers), most = max(moved.items(), key=lambda entry: entry[1])
            blame = f" (most by the {tower} tower's {layers}: alone {most:.3f})"
        raise MiniClipError(
            f"{precision}: mean recall on the run's calibration pictures is {recalls[precision]:.3f} and "
            f"{recalls['fp32']:.3f} in fp32, more than {MOST_RECALL_CHANGE} apart{blame}; leave it out with "
            f"--precision {' '.join(p for p in precisions if p != precision)}"
        )
    return recalls


def _one_set_at_a_time(path: Path, feeds: Feeds) -> list[tuple[str, np.ndarray]]:
    """Embeddings with one set of layers in 8 bits, a row a set."""
    model = onnx.load(path)
    sets = layer_sets(model)
    names = {node.name for node in model.graph.node}
    return [(name, embed(quantise(model, feeds, names - nodes)[0], feeds)) for name, nodes in sets.items()]


def layer_sets(model: onnx.ModelProto) -> dict[str, set[str]]:
    """Nodes by the layers they belong to: those of like name at all depths, `encoder.layer.N.output.dense`.

    A node without weights belongs to the layer before it.
    """
    weights = {item.name for item in model.graph.initializer}
    users: dict[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.input}
    sets: dict[str, set[str]] = {}
    current = "inputs"
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Conv", "Gemm"):
            # the exporter renames a transposed weight, but not the bias that is added behind
            behind = [name for output in node.output if output in users for name in users[output].input]
            named = [name for name in [*node.input, *behind] if name in weights and "." in name]
            if named:
                current = re.sub(r"\.\d+(?=\.|$)", ".N", named[0].removeprefix("tower.backbone.").rpartition(".")[0])
        sets.setdefault(current, set()).add(node.name)
    return {name: nodes for name, nodes in sets.items() if name != "inputs"}
