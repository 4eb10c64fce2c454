"""Random galleries, and the exact results that numpy finds in them."""

import numpy as np

TOP_K = 10
SAME_SCORE = 2e-6  # the order of summing 512 float32 products may differ


def unit_rows(rows: int, dim: int, seed: int) -> np.ndarray:
    """Random embeddings (rows, dim) float32 of unit length."""
    values = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


def numpy_top_k(gallery: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All scores (Q, N), and the best rows (Q, TOP_K)."""
    scores = queries @ gallery.T
    best = np.argpartition(-scores, TOP_K, axis=1)[:, :TOP_K]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return scores, np.take_along_axis(best, order, axis=1)


def ranks_equal(scores: np.ndarray, expected: np.ndarray, found: np.ndarray) -> bool:
    """Whether the rows at each rank are the same, or their scores differ only by rounding."""
    ours, theirs = (np.take_along_axis(scores, rows, axis=1) for rows in (found, expected))
    return bool((np.abs(ours - theirs) <= SAME_SCORE).all())
