"""Approximate search reports its recall, and is exact where it can be."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import miniclip.search.approximate
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.settings import Settings, read_settings
from miniclip.index.store import open_writer
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.approximate import Int8Search, exact_top_k, make_ann, measured_recall, open_backend, recall_of
from miniclip.search.exact import ExactSearch

ROWS, DIM = 900, 32


def make_index(folder: Path, embeds: np.ndarray) -> Path:
    """An index of invented images, written in two commits and not in the order of their paths."""
    rows, dim = embeds.shape
    with open_writer(folder, Settings("0" * 64, folder, "x"), dim) as writer:
        for numbers in np.array_split(np.random.default_rng(0).permutation(rows), 2):
            columns = {
                "path": [f"/p/{number % 3}/{number:04}.jpg" for number in numbers],
                "sha256": [int(number).to_bytes(32, "big") for number in numbers],
                "indexed_at": [datetime(2024, 1, 1)] * len(numbers),
                "taken": pa.nulls(len(numbers), pa.timestamp("s")),
                "captions": [[]] * len(numbers),
                "embedding": pa.FixedSizeListArray.from_arrays(embeds[numbers].ravel(), dim),
            }
            columns |= {name: [1] * len(numbers) for name in ("bytes", "mtime_ns", "width_px", "height_px")}
            writer.put(columns, replace=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    embeds = np.random.default_rng(0).standard_normal((ROWS, DIM), dtype=np.float32)
    return make_index(tmp_path_factory.mktemp("index") / "many", embeds / np.linalg.norm(embeds, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    queries = np.random.default_rng(1).standard_normal((9, DIM), dtype=np.float32)
    return np.asarray(queries / np.linalg.norm(queries, axis=1, keepdims=True))


def test_embeddings_on_disk_equal_those_in_memory(folder: Path) -> None:
    whole, lean = ImageIndex.open(folder), ImageIndex.open(folder, in_memory=False)
    assert lean.image_embeds.shape == (0, DIM) and len(lean) == len(whole) == ROWS
    assert [path.as_posix() for path in whole.paths] == sorted(f"/p/{n % 3}/{n:04}.jpg" for n in range(ROWS))
    rows = np.array([899, 3, 3, 450])
    np.testing.assert_array_equal(lean.embeds(rows), whole.image_embeds[rows])
    for some, part in lean.stored.batches():
        np.testing.assert_array_equal(part, whole.image_embeds[some])


def test_int8_search_finds_the_same_rows_as_exact_search(folder: Path, queries: np.ndarray) -> None:
    whole, lean = ImageIndex.open(folder), ImageIndex.open(folder, in_memory=False)
    exact_scores, exact_rows = ExactSearch(whole.image_embeds).top_k(queries, 10)
    gallery = Int8Search(lean.stored)
    scores, rows = gallery.top_k(queries, 10)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(scores, exact_scores, atol=1e-6)
    np.testing.assert_array_equal(exact_top_k(lean.stored, queries, 10), exact_rows)
    assert recall_of(gallery, lean, queries) == 1.0
    allowed = whole.below("/p/1")
    _, filtered = gallery.top_k(queries, 10, allowed)
    np.testing.assert_array_equal(filtered, ExactSearch(whole.image_embeds).top_k(queries, 10, allowed)[1])
    assert allowed[filtered].all() and gallery.top_k(queries, 5, np.zeros(ROWS, dtype=bool))[0].shape == (9, 0)


def test_int8_sums_do_not_overflow(tmp_path: Path) -> None:
    """A CPU without VNNI adds two products in 16 bits: if these overflow, much worse rows win."""
    embeds = np.full((ROWS, DIM), 1 / 127, dtype=np.float32)
    embeds[-1] = [1] * (DIM // 2) + [0] * (DIM // 2)
    index = ImageIndex.open(make_index(tmp_path / "large", embeds), in_memory=False)
    query = np.ones((1, DIM), dtype=np.float32)
    _, rows = Int8Search(index.stored).top_k(query, 1)
    assert rows.tolist() == exact_top_k(index.stored, query, 1).tolist()


def test_filtered_search_is_exact(folder: Path, queries: np.ndarray) -> None:
    image_embeds = ImageIndex.open(folder).image_embeds
    allowed = np.random.default_rng(2).random(ROWS) < 0.01
    scores, rows = ExactSearch(image_embeds).top_k(queries, 50, allowed)
    similarity = np.where(allowed, queries @ image_embeds.T, -np.inf)
    assert rows.shape == (9, allowed.sum()) and np.isfinite(scores).all()
    np.testing.assert_array_equal(rows, np.argsort(-similarity, axis=1, kind="stable")[:, : allowed.sum()])


def test_vector_index_reports_its_recall(
    folder: Path, queries: np.ndarray, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MiniClipError, match=r"has no vector index; make it with: miniclip index \.\.\. --ann"):
        open_backend("ann", ImageIndex.open(folder, in_memory=False))
    with pytest.raises(MiniClipError, match="--ann helps from 10,000 images on, and there are 900"):
        make_ann(ImageIndex.open(folder, in_memory=False))
    monkeypatch.setattr(miniclip.search.approximate, "SMALLEST_ANN", 300)
    make_ann(ImageIndex.open(folder, in_memory=False))
    index = ImageIndex.open(folder, in_memory=False)
    gallery = open_backend("ann", index)
    assert recall_of(gallery, index, queries) > 0.8
    scores, rows = gallery.top_k(queries, 10)
    found = index.stored.take(rows.ravel()).reshape(9, 10, DIM)
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, found), atol=1e-5)
    with pytest.raises(MiniClipError, match="takes no filters"):
        gallery.top_k(queries, 10, np.ones(ROWS, dtype=bool))

    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", threads=1)
    recall, texts = measured_recall("ann", gallery, index, encoders)
    assert 0.5 < recall <= 1 and texts == "64 everyday phrases"
    assert measured_recall("ann", gallery, index, encoders) == (recall, texts)  # read, not measured again
    exact = measured_recall("int8", open_backend("int8", index), index, encoders)
    assert exact[0] == 1.0
    monkeypatch.setattr(miniclip.search.approximate, "recall_of", lambda *_: 0.123)  # neither is measured again
    assert measured_recall("ann", gallery, index, encoders) == (recall, texts)
    assert measured_recall("int8", gallery, index, encoders) == exact
    (index.folder / "recall.json").unlink()
    (index.folder / "recall.json").mkdir()  # as in a read-only index, nothing can be stored
    assert measured_recall("ann", gallery, index, encoders) == (0.123, texts)
    with pytest.raises(MiniClipError, match="gallery must be one of exact, int8, ann, got fast"):
        open_backend("fast", index)


def test_vector_index_of_any_dimension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeds = np.random.default_rng(0).standard_normal((300, 50), dtype=np.float32)  # 50 is not a multiple of 8
    folder = make_index(tmp_path / "odd", embeds / np.linalg.norm(embeds, axis=1, keepdims=True))
    monkeypatch.setattr(miniclip.search.approximate, "SMALLEST_ANN", 300)
    make_ann(ImageIndex.open(folder, in_memory=False))
    gallery = open_backend("ann", ImageIndex.open(folder, in_memory=False))
    assert gallery.top_k(embeds[:2], 1)[1].shape == (2, 1)


def test_vector_index_needs_the_writers_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniclip.search.approximate, "SMALLEST_ANN", 300)
    folder = make_index(tmp_path / "index", np.random.default_rng(0).standard_normal((300, 16), dtype=np.float32))
    index = ImageIndex.open(folder, in_memory=False)
    with (
        open_writer(folder, Settings("0" * 64, folder, "x"), 16),
        pytest.raises(MiniClipError, match=r"another process .* is writing the index"),
    ):
        make_ann(index)
    assert not ImageIndex.open(folder, in_memory=False).stored.table.list_indices()
    make_ann(index)
    assert ImageIndex.open(folder, in_memory=False).stored.table.list_indices()
    assert read_settings(folder) == Settings("0" * 64, folder, "x")
