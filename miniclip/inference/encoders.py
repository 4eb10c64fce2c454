"""Texts and images to unit embeddings: the batching that every model shares.

In: texts, or images as paths or bytes. Out: `(N, D)` float32 rows of unit length.
Evaluation, index and page use `Encoders`. `onnx_encoders.py` runs a bundle on the GPU or the CPU, and
`miniclip.models.torch_encoder` has the PyTorch encoders that it is compared with.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from miniclip.cpu import thread_count
from miniclip.data.images import ImageSource
from miniclip.data.prefetch import prefetch_batches
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.inference.tokenizer import Tokenizer

IMAGE_BATCH = max(16, thread_count())  # decoded at a time
TEXT_BATCH = 16  # 64 captions in four batches by length take about half the time of one padded batch

Tokens = tuple[np.ndarray, np.ndarray]  # `input_ids`, `attention_mask`, each (B, L) int64


class Encoders(ABC):
    """Two towers that embed into one space of `dim` dimensions."""

    transform: ImageTransform
    tokenizer: Tokenizer
    dim: int
    logit_scale: float

    @abstractmethod
    def embed_pixels(self, pixel_values: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 -> `image_embeds` (B, D) float32, unit length."""

    @abstractmethod
    def embed_tokens(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """(B, L) int64 twice -> `text_embeds` (B, D) float32, unit length."""

    def encode_texts(
        self,
        texts: Sequence[str],
        batch_size: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """N texts -> `text_embeds` (N, D). Texts of similar length share a batch, which saves padding.

        `progress(n)` is called with the number done since its last call.
        """
        batch_size = batch_size or self.text_batch
        text_embeds = np.empty((len(texts), self.dim), dtype=np.float32)
        ids = self.tokenizer.ids(texts)
        order = np.argsort([len(own) for own in ids], kind="stable") if len(texts) > batch_size else range(len(texts))
        batches = [order[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        tokens = [self.tokenizer.pad([ids[row] for row in rows]) for rows in batches]
        for rows, embeds in zip(batches, self.embed_batches(tokens), strict=True):
            text_embeds[rows] = embeds
            if progress is not None:
                progress(len(rows))
        return text_embeds

    @property
    def text_batch(self) -> int:
        """The number of texts in a batch."""
        return TEXT_BATCH

    def embed_batches(self, batches: Sequence[Tokens]) -> Iterable[np.ndarray]:
        """`text_embeds` of each batch, in their order."""
        return (self.embed_tokens(*batch) for batch in batches)

    def encode_images(
        self,
        sources: Sequence[ImageSource],
        on_error: Callable[[int, str], None] | None = None,
        batch_size: int = IMAGE_BATCH,
        progress: Callable[[int], object] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images -> `(rows (M,) int64, image_embeds (M, D))`, M the number that could be read.

        For an unreadable image, `on_error(row, reason)` is called; without `on_error`, it raises `MiniClipError`.
        `progress(n)` is called with the number done since its last call.
        """

        def report(row: int, error: MiniClipError) -> None:
            if on_error is not None:
                on_error(row, str(error))
                return
            source = sources[row]
            raise MiniClipError(f"{'the picture' if isinstance(source, bytes) else source}: {error}") from error

        rows, image_embeds = [np.empty(0, dtype=np.int64)], [np.empty((0, self.dim), dtype=np.float32)]
        for batch_rows, pixel_values in prefetch_batches(sources, self.transform.load, batch_size, report):
            rows.append(batch_rows)
            image_embeds.append(self.embed_pixels(pixel_values))
            if progress is not None:
                progress(len(batch_rows))
        return np.concatenate(rows), np.concatenate(image_embeds)
