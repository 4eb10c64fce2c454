"""Search by the words that images already have: captions, names, text in the image, and the day it was taken.

In: an index and the words of a query. Out: how well each image's words cover them. Texts are searched in memory,
without an index of words. LanceDB's full-text index would be faster on millions of images, but its import takes more
than a second in every run of the command. Three words take 0.004 s in 100,000 paths, and 0.06 s in 29 MB of text. The
ranks are fused with those of the embeddings (reciprocal rank fusion: Cormack, Clarke and Buettcher 2009).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from miniclip.index.columns import Texts
from miniclip.index.image_index import ImageIndex

FUSION_K = 60  # of the paper
# Chosen on held-out data: Flickr8k's dev images with four captions each, searched by the fifth, and names of emoji in
# the validation split, without the searched one. Both gain most near these values.
NAME_WEIGHT = 1.0  # weight of a rank by names relative to a rank by embeddings
MIN_COVERAGE = 0.3  # share of a query's words, weighted by rarity
MAX_COUNTED = 2_000  # texts whose words are counted, so that texts with few other words come first
MAX_SHOWN = 200  # characters of the lines that contain a query's words
STRONG_COVERAGE = 0.6  # from this value, an image counts as found by its name
WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset(
    ["a", "an", "the", "of", "on", "in", "at", "with", "and", "or", "to", "for", "by", "from", "is", "are", "some"]
)
MONTHS: tuple[str, ...] = ("january", "february", "march", "april", "may", "june", "july")
MONTHS += ("august", "september", "october", "november", "december")
UNSPACED = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"))  # kana and Chinese characters: no spaces between words
IS_WORD = np.array([byte >= 128 or chr(byte).isalnum() for byte in range(256)])
NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class NameMatches:
    """Images whose own words cover the query, best first."""

    rows: np.ndarray  # (M,) int64
    coverage: np.ndarray  # (M,) in (0, 1]: share of the query's words
    ranks: np.ndarray  # (M,) from 1; equal matches share one


@dataclass(frozen=True)
class Source:
    """One kind of words that images have."""

    texts: Texts
    rows: np.ndarray  # (T,) the row of each text
    skip: int = 0  # bytes at the start of every text that do not count

    @cached_property
    def _lower(self) -> bytes:
        """All texts with ASCII letters in lower case: a byte search is much faster than one that ignores case."""
        return self.texts.content.tobytes().lower()

    def having(self, token: str) -> np.ndarray:
        """The texts that contain a word, in any case, in singular or plural."""
        spans = [(place, place + len(part)) for part in _variants(token) for place in _places(part, self._lower)]
        if not spans:
            return NO_ROWS
        content, bounds = self.texts.content, self.texts.ends
        starts, ends = np.array(spans).T
        text = np.searchsorted(bounds, starts, side="right") - 1
        begin, end = bounds[text], bounds[text + 1]
        inside = (ends <= end) & (starts - begin >= self.skip)
        if any(first <= token[0] <= last for first, last in UNSPACED):  # adjacent characters may be other words
            return np.unique(text[inside])
        last = len(content) - 1
        plural = np.isin(content[np.minimum(ends, last)], (ord("s"), ord("S"))) & (ends < end)
        after = ends + plural
        starts_word = (starts == begin) | ~IS_WORD[content[np.maximum(starts - 1, 0)]]
        ends_word = (after >= end) | ~IS_WORD[content[np.minimum(after, last)]]
        return np.unique(text[starts_word & ends_word & inside])

    def word_count(self, text: int) -> int:
        return len(WORD.findall(self.texts[text][self.skip :].decode("utf-8", "replace")))


class NameSearch:
    """The words of one index. Thread-safe."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index

    @cached_property
    def _sources(self) -> list[Source]:
        index, each_row = self._index, np.arange(len(self._index))
        paths = index.frames.files(index.paths.texts) if index.frames else index.paths.texts
        row_of_caption = np.repeat(each_row, np.diff(index.captions.ends))
        sources = [
            Source(index.captions.texts, row_of_caption),
            Source(paths, each_row, _root_bytes(paths)),
            Source(index.texts, each_row),
        ]
        return [source for source in sources if len(source.texts.content)]

    def search(self, words: str, allowed: np.ndarray | None = None) -> NameMatches:
        """The images whose captions, names, texts or dates contain most of these words."""
        tokens = [token for token in dict.fromkeys(WORD.findall(words.lower())) if token not in STOP_WORDS]
        count = len(self._index)
        coverage, precision = np.zeros(count), np.zeros(count)
        weights = [np.zeros(len(source.texts)) for source in self._sources]  # the weight of the words in each text
        hits = [np.zeros(len(source.texts), dtype=int) for source in self._sources]
        dated, total, words_held = np.zeros(count), 0.0, np.zeros(count, dtype=int)
        for token in tokens:
            found = [source.having(token) for source in self._sources]
            days = self._taken_in(token)
            having = np.zeros(count, dtype=bool)
            having[days] = True
            for source, texts in zip(self._sources, found, strict=True):
                having[source.rows[texts]] = True
            rarity = float(np.log1p((count - having.sum() + 0.5) / (having.sum() + 0.5)))
            total += rarity
            dated[days] += rarity
            for weight, hit, texts in zip(weights, hits, found, strict=True):
                weight[texts] += rarity
                hit[texts] += 1
        if total <= 0:
            return NameMatches(NO_ROWS, np.empty(0), NO_ROWS)
        for source, weight, hit in zip(self._sources, weights, hits, strict=True):
            value = np.where(hit > 0, np.minimum(1.0, (weight + dated[source.rows]) / total), 0.0)
            np.maximum.at(coverage, source.rows, value)
            np.maximum.at(words_held, source.rows, hit)
            best = np.flatnonzero((hit > 0) & (value == coverage[source.rows]))
            best = best[np.argsort(-value[best], kind="stable")][:MAX_COUNTED]
            for text in best.tolist():
                row = source.rows[text]
                precision[row] = max(precision[row], hit[text] / max(1, source.word_count(text)))
        only_dated = dated / total > coverage
        coverage[only_dated] = dated[only_dated] / total
        # one matching word out of several is weak evidence ("red heart" for "a red car"); a month or year is stronger
        keep = (coverage >= MIN_COVERAGE) & ((words_held > 1) | (dated > 0) | (coverage >= STRONG_COVERAGE))
        if allowed is not None:
            keep &= allowed
        rows = np.flatnonzero(keep)
        order = np.lexsort((rows, -precision[rows], -coverage[rows]))
        rows = rows[order]
        values = np.round(np.stack([coverage[rows], precision[rows]], axis=1), 6)
        starts = np.r_[True, (values[1:] != values[:-1]).any(axis=1)][: len(rows)]
        ranks = np.maximum.accumulate(np.where(starts, np.arange(1, len(rows) + 1), 0))
        return NameMatches(rows, coverage[rows], ranks)

    def _taken_in(self, token: str) -> np.ndarray:
        """Rows taken in a year such as `2023`, or in a month by its name."""
        taken = self._index.taken
        if re.fullmatch(r"(19|20)\d\d", token):
            inside = taken.astype("datetime64[Y]") == np.datetime64(token, "Y")
        elif token in MONTHS:
            inside = taken.astype("datetime64[M]").astype(np.int64) % 12 == MONTHS.index(token)
        else:
            return NO_ROWS
        return np.flatnonzero(inside & ~np.isnat(taken))


def lines_with(words: Sequence[str], text: str) -> str:
    """The lines of a text that contain any of these words, joined into one line."""
    wanted = {token for one in words for token in WORD.findall(one.lower())} - STOP_WORDS
    found = [line for line in text.splitlines() if wanted & set(WORD.findall(line.lower()))]
    return " … ".join(found)[:MAX_SHOWN]


def _root_bytes(paths: Texts) -> int:
    """Bytes of the common folder at the start of every path; its name does not describe an image."""
    first, last = paths[0], paths[len(paths) - 1]
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first.rfind(b"/", 0, same) + 1 if same else first.rfind(b"/") + 1


def fuse(rows: np.ndarray, matches: NameMatches, weight: float = NAME_WEIGHT) -> np.ndarray:
    """rows (K,) by embedding, best first, and matches by name -> all of them, best first by both."""
    value = {int(row): 1 / (FUSION_K + rank) for rank, row in enumerate(rows, 1)}
    last = 1 / (FUSION_K + len(rows) + 1)
    for row, coverage, rank in zip(matches.rows.tolist(), matches.coverage, matches.ranks, strict=True):
        value[row] = value.get(row, last) + weight * float(coverage) / (FUSION_K + int(rank))
    return np.asarray(sorted(value, key=lambda row: -value[row]), dtype=np.int64)


def _variants(token: str) -> set[bytes]:
    """How a word may be written: in singular, and letters beyond ASCII in either case."""
    stem = token[:-1] if len(token) > 3 and token.endswith("s") and not token.endswith("ss") else token
    return {variant.encode().lower() for variant in (stem, stem.title(), stem.upper())}


def _places(part: bytes, content: bytes) -> Iterator[int]:
    """The positions of bytes, including overlaps: texts follow each other without a gap, as in "poo" and "poop"."""
    place = content.find(part)
    while place >= 0:
        yield place
        place = content.find(part, place + 1)
