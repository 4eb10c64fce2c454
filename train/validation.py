"""Validation while training: embeddings of a split, and their Recall@K."""

from collections.abc import Iterator

import numpy as np
import torch

from miniclip.data.progress import BAR_AFTER_S, ProgressBar
from miniclip.errors import MiniClipError
from miniclip.evaluation.metrics import retrieval_recalls
from miniclip.models.device import Device
from miniclip.models.dual_encoder import DualEncoder

from .data import TrainingData
from .distributed import rank
from .sources import HELD_OUT, selection_score

VALIDATION_BATCH, GPU_VALIDATION_BATCH = 64, 512


def validate(model: DualEncoder, data: TrainingData) -> dict[str, float]:
    """Recall@K of the model on the whole validation split (protocol karpathy)."""
    return retrieval_recalls(*embed_validation(model, data))


def validate_held_out(model: DualEncoder, data: TrainingData, first_recall: float) -> dict[str, float]:
    """Mean recall on the held-out images of each further source, and `selection_score` over all sources."""
    held_out: dict[str, tuple[float, int]] = {}
    for place, source in enumerate(data.sources[1:], start=1):
        rows = data.image_rows(HELD_OUT, place)
        if len(rows):
            held_out[source.name] = retrieval_recalls(*embed_validation(model, data, rows))["mean_recall"], len(rows)
    if not held_out:
        return {}
    recalls = {f"held_out_recall/{name}": recall for name, (recall, _) in held_out.items()}
    return {**recalls, "all_sources_recall": selection_score(first_recall, held_out, len(data.image_rows("val")))}


@torch.inference_mode()
def embed_validation(
    model: DualEncoder, data: TrainingData, image_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`text_embeds (N_texts, D)`, `image_embeds (N_images, D)` and `image_of_text (N_texts,)`.

    They belong to the images `image_rows`, by default those of the validation split.
    """
    model.eval()
    data.images.train(False)
    data.texts.train(False)
    image_rows = data.image_rows("val") if image_rows is None else image_rows
    text_rows = data.captions_of_images(image_rows)
    text_rows = text_rows[np.argsort(data.texts.tokens.lengths[text_rows], kind="stable")]  # little padding
    device = data.images.device
    image_embeds = torch.cat(
        [
            model.vision_head(data.images.features(rows))
            for rows in row_batches(image_rows, device, "validating: images")
        ]
    )
    text_embeds = torch.cat(
        [model.text_head(data.texts.features(rows)) for rows in row_batches(text_rows, device, "validating: captions")]
    )
    if not (torch.isfinite(image_embeds).all() and torch.isfinite(text_embeds).all()):
        raise diverged("the weights are no longer finite")  # NaN scores would give 100 % recall
    image_of_text = np.searchsorted(image_rows, data.table.image_of_caption[text_rows])
    order = np.argsort(text_rows)
    return text_embeds.cpu().numpy()[order], image_embeds.cpu().numpy(), image_of_text[order]


def row_batches(rows: np.ndarray, device: Device, description: str) -> Iterator[np.ndarray]:
    """Batches of rows, with a progress bar after a while: features of trained towers are not cached."""
    size = VALIDATION_BATCH if device.is_cpu else GPU_VALIDATION_BATCH
    with ProgressBar(total=len(rows), desc=description, leave=False, delay=BAR_AFTER_S, disable=rank() > 0) as bar:
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
            bar.update(len(rows[start : start + size]))


def diverged(what: str) -> MiniClipError:
    return MiniClipError(f"{what}; the last good checkpoint is kept; lower --train.learning_rate and start again")
