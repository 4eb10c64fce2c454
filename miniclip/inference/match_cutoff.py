"""The score below which nothing in a gallery matches a query.

In: queries with known right images (`JudgedQueries`). Out: `Cutoff`.

The best score of a gallery depends on three things: whether an image matches, the query, and the size of the gallery.
To separate them, every query searches random galleries of many sizes, once with some of its right images and once
without any. A learned vector, the offset, makes the scores of different queries comparable. The cut-off rises with the
logarithm of the gallery's size, like the largest of many wrong scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniclip.inference.judged_queries import RIGHT, WRONG, JudgedQueries
from miniclip.inference.logistic import fit_logistic

FOUND_CAPTIONS = 0.95  # share of captions whose own image is in the gallery that reach the cut-off
FOUND_WORDS = 0.7  # the same for words; lower, because captions also contain words that no image shows
ABSENT_WEIGHT = 4.0  # weight of words that match nothing in a source, relative to words whose images were left out
PENALTY = 5e-4  # weight of the squared offset, relative to a mean log likelihood
MIN_WORDS = 20  # of each kind, matching and not, for an offset
MAX_ABSENT = 1500  # words of one source that match nothing
MIN_GALLERY, REPEATS = 8, 3  # images of the smallest random gallery; galleries of each matching query
SIZE_BINS = 4  # groups of galleries of similar size; the line is fitted to one quantile of each
SEED = 0


@dataclass(frozen=True)
class Cutoff:
    """`score` holds for `gallery` images; it falls by `growth` for every factor of e that a gallery is smaller."""

    score: float  # cosine similarity plus offset
    growth: float
    gallery: int
    offset: np.ndarray | None  # (D,); None if there are too few words to fit one


@dataclass(frozen=True)
class _Draws:
    """Best scores of queries in random galleries. The weight of a source is the square root of its number of draws."""

    text_embeds: np.ndarray  # (M, D)
    best: np.ndarray  # (M,)
    sizes: np.ndarray  # (M,) images in the gallery
    has_match: np.ndarray  # (M,) bool
    weights: np.ndarray  # (M,)
    queries: int

    @classmethod
    def of(cls, rows: list[tuple[int, float, int, bool]], text_embeds: np.ndarray) -> "_Draws":
        """The draws of one source, from (query, best, size, has_match)."""
        queries = np.array([row[0] for row in rows], dtype=int)
        best, sizes = np.array([row[1] for row in rows]), np.array([row[2] for row in rows], dtype=int)
        has_match = np.array([row[3] for row in rows], dtype=bool)
        weights = np.full(len(rows), 1 / np.sqrt(max(1, len(rows))))
        return cls(text_embeds[queries], best, sizes, has_match, weights, len(set(queries.tolist())))


def _join(parts: Sequence[_Draws]) -> _Draws:
    return _Draws(
        text_embeds=np.concatenate([own.text_embeds for own in parts]),
        best=np.concatenate([own.best for own in parts]),
        sizes=np.concatenate([own.sizes for own in parts]),
        has_match=np.concatenate([own.has_match for own in parts]),
        weights=np.concatenate([own.weights for own in parts]),
        queries=sum(own.queries for own in parts),
    )


def fit_cutoff(sources: Sequence[JudgedQueries]) -> Cutoff:
    """Fit offset, cut-off and growth.

    If the sources have enough words, matching and absent ones, the offset is fitted first, and then the cut-off to
    words: most short queries of users are words. Otherwise there is no offset, and the cut-off is fitted to captions.
    """
    generator = np.random.default_rng(SEED)
    captions = [_draw(own.text_embeds, own.relation, own.image_embeds, generator) for own in sources]
    words = [(own.words, own.image_embeds) for own in sources if own.words is not None]
    if words:
        present = [_draw(own.text_embeds, own.relation, images, generator) for own, images in words]
        absent = [_draw_absent(own.text_embeds, own.relation, images, generator) for own, images in words]
        offset = _fit_offset(_join(present), _join(absent), _join(captions))
        if offset is not None:
            return _fit_line(_join(present), offset, 1 - FOUND_WORDS)
    return _fit_line(_join(captions), None, 1 - FOUND_CAPTIONS)


def _draw(
    text_embeds: np.ndarray, relation: np.ndarray, image_embeds: np.ndarray, generator: np.random.Generator
) -> _Draws:
    """Search random galleries with every matching query, once with some of its right images and once without any."""
    rows: list[tuple[int, float, int, bool]] = []
    for query in np.flatnonzero((relation == RIGHT).any(axis=1)).tolist():
        scores = image_embeds @ text_embeds[query]
        right, wrong = (scores[relation[query] == label] for label in (RIGHT, WRONG))
        if len(wrong) < MIN_GALLERY:
            continue
        for size in _sizes(REPEATS, len(wrong), generator):
            others = generator.choice(wrong, size, replace=False)
            shown = max(1, generator.binomial(len(right), size / len(wrong)))
            best = generator.choice(right, shown, replace=False).max()
            rows += [(query, max(best, others.max()), size, True), (query, others.max(), size, False)]
    return _Draws.of(rows, text_embeds)


def _draw_absent(
    text_embeds: np.ndarray, relation: np.ndarray, image_embeds: np.ndarray, generator: np.random.Generator
) -> _Draws:
    """Search random galleries with queries that match no image of the source."""
    absent = np.flatnonzero((relation == WRONG).all(axis=1))
    absent = generator.choice(absent, min(len(absent), MAX_ABSENT), replace=False)
    rows: list[tuple[int, float, int, bool]] = []
    for query in absent.tolist() if len(image_embeds) >= MIN_GALLERY else ():
        scores = image_embeds @ text_embeds[query]
        (size,) = _sizes(1, len(scores), generator)
        rows.append((query, generator.choice(scores, size, replace=False).max(), size, False))
    return _Draws.of(rows, text_embeds)


def _sizes(count: int, most: int, generator: np.random.Generator) -> list[int]:
    """Sizes of `count` galleries, uniform in their logarithm."""
    sizes = np.exp(generator.uniform(np.log(MIN_GALLERY), np.log(most), count))
    return [int(size) for size in sizes]


def _fit_offset(present: _Draws, absent: _Draws, captions: _Draws) -> np.ndarray | None:
    """(D,): the weight of a query's embedding, in units of score, in a logistic regression on `has_match`."""
    if min(present.queries, absent.queries) < MIN_WORDS:
        return None
    parts = [(present, 1.0), (absent, ABSENT_WEIGHT), (captions, 1.0)]
    best, texts, labels = (
        np.concatenate([getattr(own, name) for own, _ in parts]) for name in ("best", "text_embeds", "has_match")
    )
    weights = np.concatenate([own.weights * weight / max(own.weights.sum(), 1e-12) for own, weight in parts])
    penalty = np.r_[0, 0, np.full(texts.shape[1], PENALTY)]
    found = fit_logistic(np.column_stack([best, np.ones_like(best), texts]), labels, weights, penalty)
    return np.round(found[2:] / found[0], 5) if found[0] > 0 else None


def _fit_line(draws: _Draws, offset: np.ndarray | None, share: float) -> Cutoff:
    """Fit a line over the logarithm of the gallery size; `share` of the matching queries score below it."""
    best = draws.best if offset is None else draws.best + draws.text_embeds @ offset
    best, sizes, weights = (own[draws.has_match] for own in (best, draws.sizes, draws.weights))
    if not len(best):
        return Cutoff(-1.0, 0.0, 1, offset)
    order = np.argsort(sizes, kind="stable")
    bins = [own for own in np.array_split(order, SIZE_BINS) if len(own)]
    places = [float(np.log(sizes[own]).mean()) for own in bins]
    scores = [_quantile(best[own], weights[own], share) for own in bins]
    growth = max(0.0, float(np.polyfit(places, scores, 1)[0])) if places[-1] - places[0] > 1 else 0.0
    largest = int(sizes.max())
    score = float(np.mean(scores) + growth * (np.log(largest) - np.mean(places)))
    return Cutoff(score, growth, largest, offset)


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value below which `share` of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share, side="right")), len(values) - 1)])
