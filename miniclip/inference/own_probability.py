"""The probabilities that a model trained with a sigmoid loss gives itself: sigmoid(scale * cosine + bias).

In: opened encoders of a bundle. Out: a `ScoreCalibration` with the scale and bias that SigLIP learns (X. Zhai et al.,
"Sigmoid Loss", ICCV 2023). The manifest of our bundles has both numbers. Bundles of others have no such manifest, but a
graph with both towers gives logits: scale and bias are the slope and intercept of its logits over its cosines.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from miniclip.inference.bundle_state import read_state, signature, write_state
from miniclip.inference.providers import CPU, open_session, session_options
from miniclip.inference.score_calibration import ScoreCalibration
from miniclip.inference.tower_io import TowerIO

if TYPE_CHECKING:
    from miniclip.inference.onnx_encoders import OnnxEncoders

LOGITS = "logits_per_text"
PROBE_TEXTS = ("a dog", "two red chairs", "a photo of a small boat", "a man")
MAX_DEVIATION = 1e-3  # of a logit from the line, relative to the largest logit


def own_probability(encoders: "OnnxEncoders") -> ScoreCalibration | None:
    """None if the model was trained with another loss, or if no graph of the bundle gives logits.

    A graph is measured once; the cache keeps its scale and bias.
    """
    bundle = encoders.bundle
    if bundle.manifest:
        own = bundle.manifest.get("sigmoid")
        return ScoreCalibration.of_sigmoid(own["scale"], own["bias"]) if own else None
    if not bundle.is_pooled:
        return None
    files, kept = signature(bundle, encoders.precision), read_state(bundle).get("sigmoid")
    if not (isinstance(kept, dict) and kept.get("files") == files):
        line = _line(_graph_of_both(encoders), encoders)
        kept = {"files": files, "line": line}
        write_state(bundle, {"sigmoid": kept})
    return ScoreCalibration.of_sigmoid(*kept["line"]) if kept["line"] else None


def _graph_of_both(encoders: "OnnxEncoders") -> Path:
    """The graph that contains both towers: the bundle's only one, or `model.onnx` beside the towers."""
    graph = encoders.bundle.model_path("text", encoders.precision)
    return graph if encoders.bundle.layout.is_one_graph else graph.with_name("model.onnx")


def _line(graph: Path, encoders: "OnnxEncoders") -> tuple[float, float] | None:
    """Scale and bias of the graph's logits; None unless the logits are a line with a bias."""
    if not graph.exists():
        return None
    try:
        session = open_session(graph, session_options(), [CPU])
        if LOGITS not in {node.name for node in session.get_outputs()}:
            return None
        logits, cosines = _logits_and_cosines(session, encoders)
    except Exception:  # onnxruntime's own types, none of them public; nothing else needs this graph
        return None
    if not np.isfinite([*logits.ravel(), *cosines.ravel()]).all():
        return None
    scale, bias = (float(number) for number in np.polyfit(cosines.ravel(), logits.ravel(), 1))
    deviation = np.abs(scale * cosines + bias - logits).max()
    is_line = deviation <= MAX_DEVIATION * np.abs(logits).max() and scale > 0
    return (scale, bias) if is_line and bias < 0 else None  # a softmax has no bias


def _logits_and_cosines(session: ort.InferenceSession, encoders: "OnnxEncoders") -> tuple[np.ndarray, np.ndarray]:
    """Each (N_texts, N_images) float64."""
    transform = encoders.transform
    vision, text = (TowerIO.of(session, tower, encoders.bundle.is_pooled, transform) for tower in ("vision", "text"))
    shape = (2, 3, transform.height_px, transform.width_px)
    pixel_values = np.random.default_rng(0).uniform(-1, 1, shape)
    pixel_values[1] = pixel_values[1].mean()  # two images as different as can be
    feeds = {
        **text.feeds(*encoders.tokenizer(PROBE_TEXTS)),
        vision.input: pixel_values.astype(vision.types[vision.input]),
    }
    outputs = [LOGITS, text.output, vision.output]
    logits, text_embeds, image_embeds = (np.asarray(own, dtype=np.float64) for own in session.run(outputs, feeds))
    text_embeds, image_embeds = (
        own / np.linalg.norm(own, axis=1, keepdims=True) for own in (text_embeds, image_embeds)
    )
    return logits, text_embeds @ image_embeds.T
