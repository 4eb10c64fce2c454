"""Queries with known answers, for calibrating scores."""

from dataclasses import dataclass

import numpy as np

UNKNOWN, WRONG, RIGHT = -1, 0, 1


@dataclass(frozen=True)
class Words:
    """Short queries, most of which match none of a source's images."""

    text_embeds: np.ndarray  # (Q, D) unit length
    relation: np.ndarray  # (Q, N) int8: RIGHT, WRONG or UNKNOWN


@dataclass(frozen=True)
class JudgedQueries:
    """Queries of one source, and which of its images match."""

    text_embeds: np.ndarray  # (Q, D) unit length
    image_embeds: np.ndarray  # (N, D) unit length
    relation: np.ndarray  # (Q, N) int8: RIGHT, WRONG or UNKNOWN
    words: Words | None = None
