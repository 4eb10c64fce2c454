"""Exact top-k against numpy, ties included."""

import numpy as np
import pytest

from miniclip.encoders import CPU, CUDA
from miniclip.retrieval import QUERIES, Gallery


def numpy_top_k(queries: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("pictures", "threads"), [(1, 2), (7, 2), (1500, 2), (5000, 3)])
def test_rows_equal_numpys(pictures: int, threads: int) -> None:
    generator = np.random.default_rng(0)
    # small whole numbers: sums are exact in any order, and many scores are equal
    gallery = generator.integers(-2, 3, size=(pictures, 16)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(3, 16)).astype(np.float32)
    scores, rows = Gallery(gallery, threads=threads).top_k(queries, 10)
    assert rows.tolist() == numpy_top_k(queries, gallery, 10).tolist()
    assert scores.tolist() == np.take_along_axis(queries @ gallery.T, rows, axis=1).tolist()


def test_best_comes_first_and_k_is_bounded_by_the_gallery() -> None:
    scores, rows = Gallery(np.eye(3, dtype=np.float32)).top_k(np.array([0.1, 0.9, 0.5]), 10)
    assert rows.tolist() == [[1, 2, 0]]
    assert scores[0].tolist() == sorted(scores[0].tolist(), reverse=True)


def test_no_query_gives_no_rows() -> None:
    scores, rows = Gallery(np.eye(3, dtype=np.float32)).top_k(np.empty((0, 3), np.float32), 2)
    assert scores.shape == rows.shape == (0, 0)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gallery_bound_to_the_device_gives_the_same_rows() -> None:
    """What a GPU runs; without one, onnxruntime takes the same path on the CPU."""
    generator = np.random.default_rng(0)
    gallery = generator.integers(-2, 3, size=(1500, 16)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(QUERIES + 3, 16)).astype(np.float32)
    scores, rows = Gallery(gallery, (CUDA, CPU)).top_k(queries, 10)
    assert rows.tolist() == numpy_top_k(queries, gallery, 10).tolist()
    assert scores.tolist() == np.take_along_axis(queries @ gallery.T, rows, axis=1).tolist()


def test_many_queries_over_many_blocks_equal_numpys() -> None:
    generator = np.random.default_rng(1)
    gallery = generator.integers(-2, 3, size=(9000, 16)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(2 * QUERIES + 5, 16)).astype(np.float32)
    _, rows = Gallery(gallery, threads=2).top_k(queries, 12)
    assert rows.tolist() == numpy_top_k(queries, gallery, 12).tolist()
