"""The precisions of an ONNX bundle: one row each, used by export, benchmark, bundle, providers and flags.

The precision of a bundle is a name of the table, or one for images and one for texts: `fp32+int8`.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """A precision: its files, the processors that gain from it, and its tolerances compared with PyTorch."""

    suffix: str  # of file names in the Hugging Face / transformers.js layout
    made_for: str  # "cpu", "gpu", or "" for both
    recall_tolerance: float  # of each recall
    mean_recall_tolerance: float
    min_cosine: float  # of embeddings, 1st percentile over a split
    min_padding_cosine: float  # between a text alone and the same text in a batch with a long one


# Rounding noise like that of int8 changes a single recall of 1,000 images by 0.004 (one standard deviation).
PRECISIONS = {
    "fp32": Precision("", "", 0.001, 0.0005, 0.9999, 0.999),
    "fp16": Precision("_fp16", "gpu", 0.002, 0.001, 0.995, 0.99),
    "int8": Precision("_quantized", "cpu", 0.02, 0.003, 0.975, 0.95),
}
PRECISION_CHOICES = " | ".join(("auto", *PRECISIONS))


def paired(vision: str, text: str) -> str:
    """The precision of a bundle whose towers have these precisions."""
    return vision if vision == text else f"{vision}+{text}"


def of_tower(precision: str, tower: str) -> str:
    """The name in the table for one tower, `vision` or `text`."""
    vision, plus, text = precision.partition("+")
    return text if plus and tower == "text" else vision


def is_among(precision: str, names: Collection[str]) -> bool:
    """Whether both towers have one of these precisions."""
    return {of_tower(precision, "vision"), of_tower(precision, "text")} <= {*names}


def describe(precision: str) -> str:
    """For users: `int8`, or `fp32 for images and int8 for texts`."""
    vision, text = of_tower(precision, "vision"), of_tower(precision, "text")
    return vision if vision == text else f"{vision} for images and {text} for texts"


def preferred(on_gpu: bool) -> list[str]:
    """All precisions: first the one made for this kind of processor, last the one made for the other kind."""
    here = "gpu" if on_gpu else "cpu"
    rank = {here: 0, "": 1}
    return sorted(PRECISIONS, key=lambda name: rank.get(PRECISIONS[name].made_for, 2))


def file_endings() -> str:
    """The endings of all precisions in words: "fp32 (no ending), fp16 (_fp16, for GPUs) or int8 (...)"."""
    processors = {"cpu": ", for CPUs", "gpu": ", for GPUs", "": ""}
    *others, last = (f"{p} ({row.suffix or 'no ending'}{processors[row.made_for]})" for p, row in PRECISIONS.items())
    return f"{', '.join(others)} or {last}"
