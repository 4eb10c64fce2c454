"""Turn a query into the inputs of a search: one query embedding, and the allowed rows.

In: a `Query`. Out: `Composed`, and masks or orders of rows. The embedding of the words is also kept separately, because
score calibration applies to text queries only.
"""

from dataclasses import dataclass

import numpy as np

from miniclip.index.image_index import ImageIndex
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.filters import Filters
from miniclip.search.query import Query


@dataclass(frozen=True)
class Composed:
    """The embeddings of a query."""

    query_embed: np.ndarray  # (1, D), unit length: the embedding to search for
    text_embed: np.ndarray | None  # (1, D): only its words; None if there are none


def compose(query: Query, encoders: OnnxEncoders, index: ImageIndex) -> Composed:
    """Average the wanted embeddings, and subtract the unwanted ones."""
    text_embed = _mean(encoders.encode_texts(query.texts)) if query.texts else None
    images = [index.embeds(query.rows)] if query.rows else []
    images += [encoders.encode_images([image])[1] for image in query.images]
    image_embed = _mean(np.concatenate(images)) if images else None
    if text_embed is None or image_embed is None:
        wanted = text_embed if image_embed is None else image_embed
    else:
        wanted = query.text_weight * text_embed + (1 - query.text_weight) * image_embed
    assert wanted is not None  # `Query.check` ensures it
    if query.minus:
        wanted = wanted - query.minus_weight * _mean(encoders.encode_texts(query.minus))
    return Composed(_unit(wanted), text_embed)


def allowed_rows(query: Query, index: ImageIndex) -> np.ndarray | None:
    """(N,) bool: the rows that may be results; None if all rows may."""
    allowed = query.allowed(index)
    if query.rows:
        allowed = np.ones(len(index), dtype=bool) if allowed is None else allowed
        if query.distinct:  # copies of earlier results are not new images
            allowed &= ~np.isin(index.content, index.content[list(query.rows)])
        allowed[list(query.rows)] = False
    if query.distinct and index.distinct is not None:
        allowed = index.distinct if allowed is None else _first_of_each(index.content, allowed)
    return allowed


def newest_first(rows: np.ndarray, index: ImageIndex) -> np.ndarray:
    """(K,) rows -> the same rows by date; images without a date come last, and equal dates keep their order."""
    taken = index.taken[rows]
    is_undated = np.isnat(taken)
    return np.asarray(rows[np.lexsort((-np.where(is_undated, 0, taken.astype(np.int64)), is_undated))])


def browse(query: Filters, index: ImageIndex, distinct: bool = False) -> np.ndarray:
    """(K,) the rows of all images that pass the filters, newest first; of a video its earliest frame."""
    query.check_filters()
    allowed = query.allowed(index)
    if distinct and index.distinct is not None:
        allowed = index.distinct if allowed is None else _first_of_each(index.content, allowed)
    rows = np.arange(len(index)) if allowed is None else np.flatnonzero(allowed)
    return newest_first(rows[index.frames.is_first[rows]] if index.frames else rows, index)


def _first_of_each(content: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The first allowed row of each distinct file content."""
    rows = np.flatnonzero(allowed)
    first = np.full(len(content), -1, dtype=np.int64)
    first[content[rows[::-1]]] = rows[::-1]  # the first row is written last
    chosen = np.zeros(len(content), dtype=bool)
    chosen[first[first >= 0]] = True
    return chosen


def _mean(embeds: np.ndarray) -> np.ndarray:
    """(N, D) -> (1, D) of unit length."""
    return embeds if len(embeds) == 1 else _unit(embeds.mean(axis=0, keepdims=True))


def _unit(embeds: np.ndarray) -> np.ndarray:
    """(N, D) of unit length. A zero vector stays zero, and then all images have the same score."""
    return np.asarray(embeds / np.maximum(np.linalg.norm(embeds, axis=1, keepdims=True), 1e-12), dtype=np.float32)
