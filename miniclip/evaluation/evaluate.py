"""Measure Recall@K of any encoders on a caption table: PyTorch, every precision, and bundles made by others.

In: `Encoders` and a `CaptionTable`. Out: embeddings of the whole split, and its Recall@K.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.data.caption_table import CaptionTable
from miniclip.data.progress import ProgressBar
from miniclip.errors import InvalidArgument, MiniClipError
from miniclip.evaluation.bootstrap import Ranks
from miniclip.evaluation.metrics import KS, PROTOCOLS, first_captions, retrieval_ranks
from miniclip.evaluation.text_table import text_table
from miniclip.inference.encoders import Encoders


@dataclass(frozen=True)
class SplitEmbeds:
    """A split embedded once. `table` holds only the images that could be read."""

    table: CaptionTable
    image_embeds: np.ndarray  # (N_images, D) float32
    text_embeds: np.ndarray  # (N_texts, D) float32

    def ranks(self, protocol: str = "karpathy") -> Ranks:
        """Ranks of all texts and images."""
        check_protocol(protocol)
        owner = self.table.image_of_caption
        rows = first_captions(owner) if protocol == "paired" else np.arange(len(owner))
        text_ranks, image_ranks = retrieval_ranks(self.text_embeds[rows], self.image_embeds, owner[rows])
        return Ranks(text_ranks, image_ranks, owner[rows])

    def recalls(self, protocol: str = "karpathy") -> dict[str, float]:
        """The six recalls and their mean; see `miniclip.evaluation.metrics`."""
        return self.ranks(protocol).recalls()


def check_protocol(protocol: str) -> None:
    """Raise `InvalidArgument` for an unknown protocol. Call it before embedding, which takes minutes."""
    if protocol not in PROTOCOLS:
        raise InvalidArgument("protocol", f"must be one of {', '.join(PROTOCOLS)}, got {protocol}")


def embed_split(encoders: Encoders, table: CaptionTable, description: str = "embedding") -> SplitEmbeds:
    """Embed every image and caption of a table; unreadable images are left out and stay in `table.skipped`.

    Errors: `MiniClipError` if there are no captions, no image can be read, or the model's output is not finite.
    """
    if not table.captions:
        raise MiniClipError("the data has no captions, so there is nothing to measure recall against")
    skipped: dict[int, str] = {}
    with ProgressBar(total=len(table.image_paths), desc=f"{description}, images", unit="image", leave=False) as bar:
        _, image_embeds = encoders.encode_images(table.image_paths, skipped.__setitem__, progress=bar.update)
    if len(skipped) == len(table.image_paths):
        row, reason = next(iter(skipped.items()))
        raise MiniClipError(f"no image could be read; the first: {table.image_paths[row]}: {reason}")
    table = table.without(skipped)
    with ProgressBar(total=len(table.captions), desc=f"{description}, captions", unit="caption", leave=False) as bar:
        text_embeds = encoders.encode_texts(table.captions, progress=bar.update)
    if not (np.isfinite(image_embeds).all() and np.isfinite(text_embeds).all()):  # NaN would give 100 % recall
        raise MiniClipError(
            f"{description}: the model's embeddings are not finite numbers, so there is nothing to measure; "
            "try another precision, copy the model again, or train it again"
        )
    return SplitEmbeds(table, image_embeds, text_embeds)


def recall_table(columns: dict[str, dict[str, float]]) -> str:
    """A text table of recalls in percent, with one row for each model."""
    rows = [["", "image to text R@1/5/10", "text to image R@1/5/10", "mean"]]
    for name, recall in columns.items():
        ways = (
            "/".join(f"{100 * recall[f'{way}_recall@{k}']:.1f}" for k in KS)
            for way in ("image_to_text", "text_to_image")
        )
        rows.append([name, *ways, f"{100 * recall['mean_recall']:.1f}"])
    return text_table(rows)


def clip_benchmark_json(result: dict[str, Any]) -> dict[str, Any]:
    """A result in the format of LAION's clip_benchmark, for comparison with its tables."""
    metrics = {
        f"{ours}_retrieval_recall@{k}": result[f"{way}_recall@{k}"]
        for ours, way in (("image", "text_to_image"), ("text", "image_to_text"))
        for k in KS
    }
    return {
        "dataset": Path(result["data"]).name,
        "split": result["split"],
        "model": Path(result["model"]).name,
        "pretrained": result["precision"],
        "task": "zeroshot_retrieval",
        "language": "en",
        "metrics": metrics,
    }
