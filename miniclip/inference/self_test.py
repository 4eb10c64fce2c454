"""Self-tests for bundles made by others, and the choice of the faster correct precision for each tower.

In: opened encoders. Out: a tokenizer that pads texts as the model needs them, or a `MiniClipError` with the measured
fault. The tests do not trust the bundle's settings: a model that attends to padding, or a precision that overflows,
gives wrong embeddings without an error. Results are cached by the bundle's fingerprint and its files.
"""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_state import read_state, signature, write_state
from miniclip.inference.layouts import TOWERS
from miniclip.inference.precision import PRECISIONS, describe, is_among, of_tower, paired

if TYPE_CHECKING:
    from miniclip.inference.onnx_encoders import OnnxEncoders

SHORT, OTHER = "a dog", "two red chairs"
LONG = "a photo of a small boat on a blue lake between high mountains " * 8
MIN_COSINE_TO_FP32 = 0.9  # to fp32


def examine(encoders: "OnnxEncoders") -> None:
    """Run the self-tests once for these files, and set the tokenizer's padding to their result.

    Errors: `MiniClipError` when they fail.
    """
    bundle, precision = encoders.bundle, encoders.precision
    state = read_state(bundle)
    files = signature(bundle, precision)
    passed = state.get(precision)
    if isinstance(passed, dict) and passed.get("files") == files:
        if isinstance(length := passed.get("pad_to"), int):
            encoders.tokenizer.pad_to(length)
        return
    pad_to = _check_padding(encoders)
    _check_inputs_matter(encoders)
    write_state(bundle, {precision: {"files": files, "pad_to": pad_to}})


def fastest_precision(bundle: Bundle, open_with: Callable[[str], "OnnxEncoders"]) -> str | None:
    """The fastest precision that is correct on this CPU, for each tower; None if there is no choice, or no fp32.

    8-bit weights often make a text model twice as fast, but convolutions with dynamic scales ten times slower. A
    precision is correct if it passes the self-tests and its embeddings agree with fp32. Both towers have one
    precision if one graph contains them, because two graphs would take twice the memory.
    """
    precisions = [name for name in bundle.precisions if PRECISIONS[name].made_for != "gpu"]
    if len(precisions) < 2 or "fp32" not in precisions:
        return None
    state = read_state(bundle)
    files = [signature(bundle, name) for name in precisions]
    kept = state.get("fastest")
    if isinstance(kept, dict) and kept.get("files") == files and is_among(str(kept.get("precision")), precisions):
        return str(kept["precision"])
    chosen = dict.fromkeys(TOWERS, "fp32")
    fp32 = _measure(open_with("fp32"), TOWERS)
    for towers in (TOWERS,) if bundle.layout.is_one_graph else (("vision",), ("text",)):
        shortest = sum(fp32[tower].seconds for tower in towers)
        for name in (own for own in precisions if own != "fp32"):
            tried = chosen | dict.fromkeys(towers, name)
            with contextlib.suppress(MiniClipError):  # a precision that fails its self-tests is not used
                measured = _measure(open_with(paired(**tried)), towers)
                agrees = all(_agreement(fp32[tower], measured[tower]) >= MIN_COSINE_TO_FP32 for tower in towers)
                seconds = sum(own.seconds for own in measured.values())
                if agrees and seconds < shortest:
                    chosen, shortest = tried, seconds
    write_state(bundle, {"fastest": {"files": files, "precision": paired(**chosen)}})
    return paired(**chosen)


@dataclass(frozen=True)
class _Measured:
    """A tower at one precision."""

    embeds: np.ndarray  # (N, D) of a few inputs
    seconds: float


def _measure(encoders: "OnnxEncoders", towers: Collection[str]) -> dict[str, _Measured]:
    def embed(tower: str) -> np.ndarray:
        if tower == "text":
            return encoders.embed_tokens(*encoders.tokenizer([SHORT, OTHER]))
        return encoders.embed_pixels(_probe_images(encoders))

    return {tower: _Measured(embed(tower), encoders.measure_seconds([tower])) for tower in towers}


def _agreement(fp32: _Measured, int8: _Measured) -> float:
    """The lowest cosine between the two."""
    return float((fp32.embeds * int8.embeds).sum(axis=1).min())


def _check_padding(encoders: "OnnxEncoders") -> int | None:
    """The length to which every text must be padded; None if padding has no effect or is already to one length.

    The test embeds a text alone, and again together with a long one. If the results differ and the graph takes no mask,
    the model attends to padding, so it was trained with rows of one length.
    """
    tokenizer = encoders.tokenizer
    if tokenizer.exact_length is not None:
        return None
    alone, beside = (encoders.embed_tokens(*tokenizer(texts))[0] for texts in ([SHORT], [SHORT, LONG]))
    cosine = float(alone @ beside)
    if not encoders.takes_mask and not cosine >= PRECISIONS["fp32"].min_padding_cosine:
        tokenizer.pad_to(tokenizer.max_tokens)
        return tokenizer.max_tokens
    if not cosine >= PRECISIONS[of_tower(encoders.precision, "text")].min_padding_cosine:
        raise _refusal(encoders, f"a longer text in the batch changes the embedding of a text (cosine {cosine:.3f})")
    return None


def _check_inputs_matter(encoders: "OnnxEncoders") -> None:
    """Check that both towers give finite rows of one dimension, and that different inputs give different rows."""
    texts = encoders.embed_tokens(*encoders.tokenizer([SHORT, OTHER]))
    images = np.concatenate([encoders.embed_pixels(pixels[None]) for pixels in _probe_images(encoders)])
    if texts.shape[-1] != images.shape[-1]:
        raise _refusal(encoders, f"texts have {texts.shape[-1]} dimensions and images {images.shape[-1]}")
    for what, embeds in (("texts", texts), ("images", images)):
        if embeds.ndim != 2 or len(embeds) != 2:
            raise _refusal(encoders, f"two {what} give an array of shape {embeds.shape}")
        if not np.abs(np.linalg.norm(embeds, axis=1) - 1).max() < 1e-2:
            raise _refusal(encoders, f"embeddings of {what} are not numbers, or all zero")
        if np.array_equal(embeds[0], embeds[1]):
            raise _refusal(encoders, f"two different {what} have the same embedding")


def _probe_images(encoders: "OnnxEncoders") -> np.ndarray:
    """(2, 3, H, W): large, soft, random patches."""
    height, width = encoders.transform.height_px, encoders.transform.width_px
    patches = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4, 4)).astype(np.float32)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return np.ascontiguousarray(patches[:, :, rows][:, :, :, columns])


def _refusal(encoders: "OnnxEncoders", what: str) -> MiniClipError:
    return MiniClipError(
        f"{encoders.bundle.name} in {describe(encoders.precision)} failed its self-test: {what}; "
        "name another --precision, or another bundle"
    )
