"""Search: an index, its bundle's encoders and a gallery, behind the three questions that terminal and page ask.

In: words or a picture. Out: `Hit` and `CaptionHit` lists, best first.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miniclip.bundle import Bundle
from miniclip.encoders import OnnxEncoders
from miniclip.errors import MiniClipError
from miniclip.images import ImageSource
from miniclip.index import PictureIndex
from miniclip.retrieval import Gallery


@dataclass(frozen=True)
class Hit:
    """One picture found. `row` is its place in the index, `score` the cosine similarity."""

    row: int
    score: float
    path: Path
    captions: list[str]


@dataclass(frozen=True)
class CaptionHit:
    """One caption found for a picture, with the row of the picture it belongs to."""

    caption: str
    score: float
    row: int


class Searcher:
    """Everything loaded once; each question is one encoder run and one top-k. Thread-safe."""

    def __init__(self, index: PictureIndex, encoders: OnnxEncoders) -> None:
        index.check_bundle(encoders.bundle.fingerprint)
        self.index, self.encoders = index, encoders
        self._images = Gallery(index.image_embeds, encoders.providers)
        # several pictures may share a caption: each is shown once, with the first of them
        self._captions: list[tuple[str, int]] | None = None
        # embedded on first use: most folders have no captions, and words need only the pictures
        self._caption_gallery: Gallery | None = None

    @classmethod
    def open(
        cls,
        index: str | Path,
        bundle: str | Path | None = None,
        provider: str = "auto",
        precision: str = "auto",
        strict: bool = False,
    ) -> "Searcher":
        """Open an index with the bundle that made it, or with `bundle`."""
        opened = PictureIndex.open(index)
        encoders = OnnxEncoders(Bundle.open(bundle or opened.bundle_folder), provider, precision, strict)
        encoders.warm_up()
        return cls(opened, encoders)

    @property
    def has_captions(self) -> bool:
        return bool(self.index.captions)

    def by_text(self, words: str, top_k: int = 10) -> list[Hit]:
        """Words -> pictures."""
        if not words.strip():
            raise MiniClipError("the query is empty; type what the picture should show")
        return self._hits(self.encoders.encode_texts([words]), top_k)

    def by_image(self, picture: ImageSource, top_k: int = 10) -> list[Hit]:
        """A picture -> the pictures most like it."""
        return self._hits(self.encoders.encode_images([picture])[1], top_k)

    def by_row(self, row: int, top_k: int = 10) -> list[Hit]:
        """More like a picture of the index."""
        return self._hits(self.index.image_embeds[row : row + 1], top_k)

    def captions_for(self, picture: ImageSource, top_k: int = 5) -> list[CaptionHit]:
        """A picture -> the captions of the index that describe it best; empty where the index has none."""
        if not self.has_captions:
            return []
        if self._captions is None or self._caption_gallery is None:
            self._captions = self.index.captions.distinct()
            text_embeds = self.encoders.encode_texts([caption for caption, _ in self._captions])
            self._caption_gallery = Gallery(text_embeds, self.encoders.providers)
        scores, rows = self._caption_gallery.top_k(self.encoders.encode_images([picture])[1], top_k)
        found = [(self._captions[int(row)], float(score)) for score, row in zip(scores[0], rows[0], strict=True)]
        return [CaptionHit(caption, score, image_row) for (caption, image_row), score in found]

    def _hits(self, query_embeds: np.ndarray, top_k: int) -> list[Hit]:
        scores, rows = self._images.top_k(query_embeds, top_k)
        return [
            Hit(int(row), float(score), self.index.paths[int(row)], self.index.captions[int(row)])
            for score, row in zip(scores[0], rows[0], strict=True)
        ]
