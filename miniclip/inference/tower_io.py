"""The interface of a tower's graph: names, types and sizes of its inputs, and the output with its embedding.

In: an onnxruntime session. Out: a `TowerIO`, which turns tokens or images into the session's inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError

INPUTS = {"vision": ("pixel_values", "image"), "text": ("input_ids", "text")}
OUTPUTS = {"vision": ("image_embeds", "l2norm_image_embeddings"), "text": ("text_embeds", "l2norm_text_embeddings")}
MASK = "attention_mask"
POOLED = "pooler_output"  # SigLIP's embedding; in a CLIP, the features before the projection
TYPES: dict[str, type] = {
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


@dataclass
class TowerIO:
    """One tower's inputs and output. `shape` is the declared shape of its input, with names for dynamic axes."""

    input: str
    output: str
    types: dict[str, type]  # of every input of the graph
    shape: list[int | str | None]
    dim: int | None  # if the graph declares it
    dummies: dict[str, np.ndarray]  # for the inputs of the other tower, if one graph contains both

    @classmethod
    def of(cls, session: ort.InferenceSession, tower: str, is_pooled: bool, transform: ImageTransform) -> "TowerIO":
        """Read the session; `is_pooled` if `pooler_output` is the embedding.

        Errors: `MiniClipError` if MiniCLIP knows none of its inputs or outputs.
        """
        nodes = {node.name: node for node in session.get_inputs()}
        own = next((name for name in INPUTS[tower] if name in nodes), None)
        if own is None and len(nodes) == 1:
            own = next(iter(nodes))
        other = "text" if tower == "vision" else "vision"
        dummies = {name: _dummy(name, nodes[name].shape, transform) for name in INPUTS[other] if name in nodes}
        if tower == "vision" and MASK in nodes:
            dummies[MASK] = _dummy(MASK, nodes[MASK].shape, transform)
        unknown = set(nodes) - {own, MASK} - set(dummies)
        if own is None or unknown or any(node.type not in TYPES for node in nodes.values()):
            shown = ", ".join(f"{node.name} {node.type}" for node in nodes.values())
            raise MiniClipError(
                f"a model of the bundle has inputs {shown}, which MiniCLIP does not know; export it again"
            )
        output = _output(session, tower, is_pooled)
        return cls(
            input=own,
            output=output.name,
            types={name: TYPES[node.type] for name, node in nodes.items()},
            shape=list(nodes[own].shape),
            dim=output.shape[-1] if output.shape and isinstance(output.shape[-1], int) else None,
            dummies=dummies,
        )

    @property
    def exact_length(self) -> int | None:
        """The number of tokens that the graph of a text tower declares."""
        return self.shape[1] if len(self.shape) == 2 and isinstance(self.shape[1], int) else None

    def feeds(self, values: np.ndarray, attention_mask: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`pixel_values`, or `input_ids` with their mask, under the names and in the types of the graph."""
        feeds = {self.input: values, **self.dummies}
        if attention_mask is not None and MASK in self.types:
            feeds[MASK] = attention_mask
        return {name: array.astype(self.types[name], copy=False) for name, array in feeds.items()}

    def try_empty_dummy(self, run: Callable[[], Any]) -> None:
        """If one graph contains both towers, avoid computing images for text queries, if the graph allows it."""
        for name, dummy in self.dummies.items():
            if dummy.ndim == 4:
                self.dummies[name] = dummy[:0]
                try:
                    run()
                except Exception:  # onnxruntime's own types, none of them public
                    self.dummies[name] = dummy


def _dummy(name: str, shape: list[Any], transform: ImageTransform) -> np.ndarray:
    if name in INPUTS["vision"]:
        return np.zeros((1, 3, transform.height_px, transform.width_px), dtype=np.float32)
    return np.ones((1, shape[1] if isinstance(shape[-1], int) else 1), dtype=np.int64)


def _output(session: ort.InferenceSession, tower: str, is_pooled: bool) -> Any:
    """The projected output by one of its names, or the only output there is."""
    outputs = {node.name: node for node in session.get_outputs()}
    wanted = (*OUTPUTS[tower], POOLED) if is_pooled else OUTPUTS[tower]
    found = next((name for name in wanted if name in outputs), None)
    if found is None and len(outputs) == 1 and POOLED not in outputs:
        found = next(iter(outputs))
    if found is None:
        raise MiniClipError(
            f"a model of the bundle has outputs {', '.join(outputs)}, but no {OUTPUTS[tower][0]}; export it again"
        )
    return outputs[found]
