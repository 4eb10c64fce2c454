"""The precisions of an ONNX bundle: one row each, used by export, benchmark, bundle and page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Where a precision's files are, and how far its results may be from those of PyTorch."""

    suffix: str  # of the file name, as in the Hugging Face / transformers.js layout
    recall_tolerance: float  # of each recall
    mean_recall_tolerance: float
    min_cosine: float  # of embeddings, 1st percentile over a split


# Rounding noise as small as that of int8 moves a single recall of 1,000 images by 0.004, one standard deviation.
PRECISIONS = {
    "fp32": Precision("", 0.001, 0.0005, 0.9999),
    "fp16": Precision("_fp16", 0.002, 0.001, 0.995),
    "int8": Precision("_quantized", 0.02, 0.003, 0.975),
}
