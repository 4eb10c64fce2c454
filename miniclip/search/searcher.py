"""Search: an index, the encoders of its bundle and a gallery, for the command and the page.

In: a `Query`, or words, an image, a row. Out: `Hit` and `CaptionHit` lists, best first, with the probability that an
image matches the words if the bundle is calibrated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from miniclip.data.images import ImageSource
from miniclip.data.moments import file_of, second_of
from miniclip.errors import InvalidArgument
from miniclip.index.image_index import ImageIndex
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import find_bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.caption_cache import caption_embeds
from miniclip.search.compose import allowed_rows, browse, compose, newest_first
from miniclip.search.exact import ExactSearch
from miniclip.search.names import STRONG_COVERAGE, NameMatches, NameSearch, fuse, lines_with
from miniclip.search.query import DEFAULT_TOP_K, Query

if TYPE_CHECKING:
    from miniclip.search.approximate import SearchBackend

SORTS = ("match", "date")
FUSION_DEPTH = 1000  # embedding ranks that are fused with names
DEEPER = 4  # times as many rows are looked at where the best ones are frames of few videos


@dataclass(frozen=True)
class Hit:
    """One result. `row` is its row in the index, `score` the cosine similarity to the whole query.

    In object storage `path` only names it: `ImageIndex.source` opens it.
    """

    row: int
    score: float
    path: Path  # of the file
    captions: list[str]
    probability: float | None = (
        None  # that it matches the query's words; None for other queries, or without calibration
    )
    by_name: bool = False  # its captions, file or folder names, date or text contain the query's words
    match: str | None = None  # `probability` in a word: strong, likely or weak
    text: str = ""  # lines of text in the image that contain words of the query
    second: float | None = None  # of the frame in its video


@dataclass(frozen=True)
class SearchResult:
    """Images, best first. `nothing_matches`: even the best image is below the bundle's cut-off.

    If there are no hits and `nothing_matches` is false, the query's filters excluded every image.
    """

    hits: list[Hit]
    nothing_matches: bool = False
    is_calibrated: bool = False


@dataclass(frozen=True)
class CaptionHit:
    """One caption found for an image, with the row of the image it belongs to."""

    caption: str
    score: float
    row: int


class Searcher:
    """All parts, loaded once; a query is one encoder run and one top-k. Thread-safe."""

    def __init__(self, index: ImageIndex, encoders: OnnxEncoders, gallery: "SearchBackend | None" = None) -> None:
        """`gallery` replaces exact search in memory; it must belong to the same index."""
        index.check_bundle(encoders.bundle.fingerprint, encoders.bundle.folder)
        self.index, self.encoders = index, encoders
        self.match = encoders.match
        self.gallery: SearchBackend = gallery or ExactSearch(index.image_embeds, encoders.providers)
        # several images may share a caption: each is shown once, with the first of them
        self._captions: tuple[list[tuple[str, int]], ExactSearch] | None = None

    @classmethod
    def open(
        cls,
        index: str | Path,
        bundle: str | Path | None = None,
        provider: str = "auto",
        precision: str = "auto",
        strict: bool = False,
        gallery: str = "exact",
    ) -> "Searcher":
        """Open an index with the bundle that made it, or with `bundle`; `gallery` is `exact`, `int8` or `ann`."""
        opened = ImageIndex.open(index, in_memory=gallery == "exact")
        encoders = OnnxEncoders(
            Bundle.open(find_bundle(bundle or opened.bundle_folder, precision)), provider, precision, strict
        )
        encoders.warm_up()
        if gallery == "exact":
            return cls(opened, encoders)
        from miniclip.search.approximate import open_backend  # imports LanceDB

        return cls(opened, encoders, open_backend(gallery, opened))

    @property
    def has_captions(self) -> bool:
        return bool(self.index.captions)

    def search(self, query: Query) -> SearchResult:
        """Answer a query; `MiniClipError` when it is empty or cannot be answered."""
        query.check(len(self.index))
        composed = compose(query, self.encoders, self.index)
        allowed = allowed_rows(query, self.index)
        matches = [self._names.search(words, allowed) for words in query.texts] if query.names else []
        scores, rows = self._ranked(composed.query_embed, query.top_k, allowed, matches)
        named = [own.rows[own.coverage >= STRONG_COVERAGE] for own in matches]
        by_name = np.intersect1d(rows, np.concatenate(named)) if named else np.empty(0, dtype=np.int64)
        # only words are calibrated: with an image or `minus`, the order differs
        if composed.text_embed is None or self.match is None or query.images or query.rows or query.minus:
            return SearchResult(self.in_order(self._hits(scores, rows, None, by_name, query), query.sort))
        likely = self.match.probability(scores, composed.text_embed[0])
        compared = len(self.index) if allowed is None else int(np.count_nonzero(allowed))
        nothing_matches = (
            len(likely) > 0 and likely.max() < self.match.cutoff_probability(compared) and len(by_name) == 0
        )
        # an image that ranks higher because of its name is at least as likely as the images below
        likely = np.maximum.accumulate(likely[::-1])[::-1]
        words = self.match.words(likely.tolist(), compared)
        hits = [
            replace(hit, match=word)
            for hit, word in zip(self._hits(scores, rows, likely, by_name, query), words, strict=True)
        ]
        return SearchResult(self.in_order(hits, query.sort), bool(nothing_matches), is_calibrated=True)

    def browse(self, query: Query) -> list[Hit]:
        """The newest `top_k` images that pass the query's filters; their scores are 0."""
        rows = browse(query, self.index, query.distinct)[: query.top_k]
        return self._hits(np.zeros(len(rows)), rows)

    def in_order(self, hits: list[Hit], sort: str) -> list[Hit]:
        """Hits in their order, best first (`sort` is "match"), or the newest first ("date")."""
        if sort not in SORTS:
            raise InvalidArgument("sort", f"must be match or date, got {sort}")
        if sort == "match" or not hits:
            return hits
        by_row = {hit.row: hit for hit in hits}
        return [by_row[row] for row in newest_first(np.array(list(by_row)), self.index).tolist()]

    def _ranked(
        self, query_embed: np.ndarray, top_k: int, allowed: np.ndarray | None, matches: Sequence[NameMatches]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows (top_k,), best first, by embeddings and matching names; of each video only the best frame."""
        frames = self.index.frames
        depth = max(top_k, FUSION_DEPTH) if matches else top_k
        while True:
            scores, found = self.gallery.top_k(query_embed, min(depth, len(self.index)), allowed)
            rows = found[0]
            for own in matches:
                rows = fuse(rows, own)
            rows = frames.one_of_each(rows)[:top_k] if frames else rows[:top_k]
            if len(rows) == top_k or found.shape[1] < depth:
                break
            depth *= DEEPER
        if matches:
            return self.index.embeds(rows) @ query_embed[0], rows
        return scores[0][np.isin(found[0], rows)], rows

    @cached_property
    def _names(self) -> NameSearch:
        return NameSearch(self.index)

    def by_text(self, words: str, top_k: int = DEFAULT_TOP_K) -> list[Hit]:
        """Words -> images."""
        return self.search(Query(texts=(words,), top_k=top_k)).hits

    def by_image(self, image: ImageSource, top_k: int = DEFAULT_TOP_K) -> list[Hit]:
        """An image -> the images most like it."""
        return self.search(Query(images=(image,), top_k=top_k)).hits

    def by_row(self, row: int, top_k: int = DEFAULT_TOP_K) -> list[Hit]:
        """An image of the index -> itself and the images most like it."""
        scores, rows = self.gallery.top_k(self.index.embeds([row]), top_k)
        return self._hits(scores[0], rows[0])

    @property
    def captions_are_ready(self) -> bool:
        """Whether `captions_for` answers at once."""
        return self._captions is not None or not self.has_captions

    def prepare_captions(self) -> None:
        """Embed the captions of the index on first use: most folders have none, and most queries need none."""
        if not self.captions_are_ready:
            distinct = self.index.captions.distinct()
            text_embeds = caption_embeds(self.index.folder, [caption for caption, _ in distinct], self.encoders)
            self._captions = distinct, ExactSearch(text_embeds, self.encoders.providers)

    def captions_for(self, image: ImageSource, top_k: int = 5) -> list[CaptionHit]:
        """An image -> the captions of the index that describe it best; empty if the index has none."""
        self.prepare_captions()
        if self._captions is None:
            return []
        captions, gallery = self._captions
        scores, rows = gallery.top_k(self.encoders.encode_images([image])[1], top_k)
        found = [(captions[int(row)], float(score)) for score, row in zip(scores[0], rows[0], strict=True)]
        return [CaptionHit(caption, score, image_row) for (caption, image_row), score in found]

    def _hits(
        self,
        scores: np.ndarray,
        rows: np.ndarray,
        probabilities: np.ndarray | None = None,
        named: Sequence[int] | np.ndarray = (),
        query: Query | None = None,
    ) -> list[Hit]:
        index, by_name = self.index, {int(row) for row in named}
        words = query.texts if query and query.names else ()

        def shown(row: int) -> str:
            return lines_with(words, index.text(row)) if words else ""

        likely = [None] * len(rows) if probabilities is None else [float(one) for one in probabilities]
        return [
            replace(self.hit(row, float(score)), probability=probability, by_name=row in by_name, text=shown(row))
            for score, row, probability in zip(scores, rows.tolist(), likely, strict=True)
        ]

    def hit(self, row: int, score: float = 0.0) -> Hit:
        """One row of the index as a result."""
        path = self.index.paths.text(row)
        return Hit(row, score, Path(file_of(path)), self.index.captions[row], second=second_of(path))
