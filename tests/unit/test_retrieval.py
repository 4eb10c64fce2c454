"""Exact top-k equals numpy, including ties."""

import numpy as np
import pytest

from miniclip.inference.providers import CPU, CUDA
from miniclip.search.device_search import GROUP_ROWS, DeviceSearch
from miniclip.search.exact import QUERIES, ExactSearch


def numpy_top_k(queries: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("images", "threads"), [(1, 2), (7, 2), (1500, 2), (5000, 3)])
def test_rows_equal_numpy(images: int, threads: int) -> None:
    generator = np.random.default_rng(0)
    # small whole numbers: sums are exact in any order, and many scores are equal
    gallery = generator.integers(-2, 3, size=(images, 16)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(3, 16)).astype(np.float32)
    scores, rows = ExactSearch(gallery, threads=threads).top_k(queries, 10)
    assert rows.tolist() == numpy_top_k(queries, gallery, 10).tolist()
    assert scores.tolist() == np.take_along_axis(queries @ gallery.T, rows, axis=1).tolist()


def test_best_comes_first_and_k_is_bounded_by_the_gallery() -> None:
    scores, rows = ExactSearch(np.eye(3, dtype=np.float32)).top_k(np.array([0.1, 0.9, 0.5]), 10)
    assert rows.tolist() == [[1, 2, 0]]
    assert scores[0].tolist() == sorted(scores[0].tolist(), reverse=True)


def test_no_query_gives_no_rows() -> None:
    scores, rows = ExactSearch(np.eye(3, dtype=np.float32)).top_k(np.empty((0, 3), np.float32), 2)
    assert scores.shape == rows.shape == (0, 0)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gallery_bound_to_the_device_gives_the_same_rows() -> None:
    """The path of a GPU; without one, onnxruntime runs it on the CPU."""
    generator = np.random.default_rng(0)
    gallery = generator.integers(-2, 3, size=(1500, 16)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(QUERIES + 3, 16)).astype(np.float32)
    scores, rows = ExactSearch(gallery, (CUDA, CPU)).top_k(queries, 10)
    assert rows.tolist() == numpy_top_k(queries, gallery, 10).tolist()
    assert scores.tolist() == np.take_along_axis(queries @ gallery.T, rows, axis=1).tolist()


def test_many_queries_over_many_blocks_equal_numpy() -> None:
    generator = np.random.default_rng(1)
    gallery = generator.integers(-2, 3, size=(9000, 16)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(2 * QUERIES + 5, 16)).astype(np.float32)
    _, rows = ExactSearch(gallery, threads=2).top_k(queries, 12)
    assert rows.tolist() == numpy_top_k(queries, gallery, 12).tolist()


@pytest.mark.parametrize("allowed_share", [None, 0.5, 0.0001])
def test_rows_equal_numpy_if_blocks_have_a_threshold(allowed_share: float | None) -> None:
    """With 64 queries over many blocks, only the first blocks are fully ranked; few allowed rows leave too few hits."""
    generator = np.random.default_rng(2)
    gallery = generator.integers(-2, 3, size=(100_003, 16)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(QUERIES, 16)).astype(np.float32)
    allowed = None if allowed_share is None else generator.random(len(gallery)) < allowed_share
    scores, rows = ExactSearch(gallery, threads=2).top_k(queries, 10, allowed)
    expected = queries @ gallery.T
    if allowed is not None:
        expected[:, ~allowed] = -np.inf
    expected_rows = np.argsort(-expected, axis=1, kind="stable")[:, : rows.shape[1]]
    assert rows.shape[1] == (10 if allowed is None else min(10, allowed.sum()))
    assert rows.tolist() == expected_rows.tolist()
    assert scores.tolist() == np.take_along_axis(expected, expected_rows, axis=1).tolist()


@pytest.mark.parametrize("order", ["better and better", "all equal", "worse and worse"])
def test_rows_equal_numpy_for_any_order_of_the_gallery(order: str) -> None:
    """If each row is at least as good as all rows before it, every row reaches the threshold of the first ones."""
    steps = {"better and better": 1, "all equal": 0, "worse and worse": -1}[order]
    gallery = np.ones((50_000, 4), dtype=np.float32) * (100 + steps * np.arange(50_000, dtype=np.float32)[:, None])
    queries = np.ones((QUERIES, 4), dtype=np.float32)
    _, rows = ExactSearch(gallery, threads=2).top_k(queries, 10)
    assert rows.tolist() == numpy_top_k(queries, gallery, 10).tolist()


def unit_rows(rows: int, dim: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("rows", [1, 1000, GROUP_ROWS, 5 * GROUP_ROWS + 1])
def test_device_rows_equal_numpy_in_float32_and_float16(half: bool, rows: int) -> None:
    gallery, queries = unit_rows(rows, 64, seed=0), unit_rows(5, 64, seed=1)
    scores, found = DeviceSearch(gallery, half).top_k(queries, min(10, rows))
    expected = numpy_top_k(queries, gallery, min(10, rows))
    assert found.tolist() == expected.tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ gallery.T, expected, axis=1), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("half", [False, True])
def test_device_finds_allowed_rows_only(half: bool) -> None:
    """Fewer allowed rows than float16 candidates, and a last group with padding."""
    gallery, queries = unit_rows(GROUP_ROWS + 7, 64, seed=0), unit_rows(3, 64, seed=1)
    bias = np.full((len(gallery), 1), -np.inf, dtype=np.float32)
    allowed = [3, 500, GROUP_ROWS + 6]
    bias[allowed] = 0
    _, found = DeviceSearch(gallery, half).top_k(queries, 3, bias)
    assert [sorted(own) for own in found.tolist()] == [allowed] * 3


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_top_k_may_exceed_the_size_of_a_group() -> None:
    gallery, queries = unit_rows(3 * GROUP_ROWS, 16, seed=0), unit_rows(2, 16, seed=1)
    wanted = GROUP_ROWS + 100
    _, found = DeviceSearch(gallery).top_k(queries, wanted)
    assert found.tolist() == numpy_top_k(queries, gallery, wanted).tolist()
