"""Search that takes less memory or time than exact search, and its recall against exact search.

    int8   8 bits per value in memory, a quarter of float32; a query reads them faster on every CPU; the best
           candidates are scored again from the table
    ann    LanceDB's vector index (IVF-PQ) on disk; almost nothing in memory. `miniclip index --ann` makes it

In: an opened index, its embeddings on disk. Out: galleries with the `top_k` of `miniclip.search.exact.Gallery`, and
their recall: the share of the exact top 10 of text queries that they find.
"""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from lancedb.index import IvfPq
from onnx import TensorProto, helper

from miniclip.cpu import thread_count
from miniclip.errors import InvalidArgument, MiniClipError
from miniclip.files import write_json
from miniclip.index.image_index import ImageIndex
from miniclip.index.lance_errors import writing
from miniclip.index.settings import read_settings
from miniclip.index.store import open_writer
from miniclip.index.stored_embeds import StoredEmbeds
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.providers import session_options

GALLERIES = ("exact", "int8", "ann")
CANDIDATES = 8  # rescored, for each requested result
BLOCK = 1 << 16  # rows
# 8-bit queries are -63..63, shifted to 1..127: two products with 127 then fit the 16 bits in which a CPU without VNNI
# adds them
MAX_QUERY, QUERY_ZERO = 63, 64
SMALLEST_ANN = 10_000  # rows; below, exact search is as fast
PROBES = tuple(
    f"{what} {where}"
    for what in ("a dog", "two people", "a child", "a red car", "food", "a cat", "a woman smiling", "an old building")
    for where in (
        "",
        "on the beach",
        "in the snow",
        "at night",
        "in a street",
        "on a table",
        "by the water",
        "in the sun",
    )
)


class SearchBackend(Protocol):
    """The methods that a `Searcher` uses."""

    def top_k(
        self, query_embeds: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...


def open_backend(kind: str, index: ImageIndex) -> SearchBackend:
    """`int8` or `ann` on an index with embeddings on disk; `MiniClipError` for other kinds or no vector index."""
    if kind == "int8":
        return Int8Search(index.stored)
    if kind == "ann":
        if not index.stored.table.list_indices():
            raise MiniClipError(f"the index {index.folder} has no vector index; make it with: miniclip index ... --ann")
        return AnnSearch(index.stored)
    raise InvalidArgument("gallery", f"must be one of {', '.join(GALLERIES)}, got {kind}")


def int8_graph() -> bytes:
    """`queries (Q, D)` uint8, `gallery (D, N)` int8, `bias (1, N)`, `k (1,)` -> `scores (Q, K)`, `rows (Q, K)`."""
    nodes = [
        helper.make_node("MatMulInteger", ["queries", "gallery"], ["products"]),
        helper.make_node("Cast", ["products"], ["similarity"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["similarity", "bias"], ["biased"]),
        helper.make_node("TopK", ["biased", "k"], ["scores", "rows"], axis=1, largest=1, sorted=1),
    ]
    inputs = [
        helper.make_tensor_value_info("queries", TensorProto.UINT8, ["Q", "D"]),
        helper.make_tensor_value_info("gallery", TensorProto.INT8, ["D", "N"]),
        helper.make_tensor_value_info("bias", TensorProto.FLOAT, [1, "N"]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["Q", "K"]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, ["Q", "K"]),
    ]
    graph = helper.make_graph(nodes, "int8_top_k", inputs, outputs)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


@dataclass(frozen=True)
class Int8Block:
    """Some of the embeddings in 8 bits."""

    embeds: np.ndarray  # (D, n) int8: one column per image, because onnxruntime's matrix-vector product reads rows
    rows: np.ndarray  # (n,) of the index
    offsets: np.ndarray  # (n,) float32: corrects the products for the shift of queries to unsigned numbers


class Int8Search:
    """Embeddings in 8 bits. One scale is enough, because all rows have unit length. Thread-safe."""

    def __init__(self, stored: StoredEmbeds) -> None:
        self._stored = stored
        largest = max((float(np.abs(part).max()) for _, part in stored.batches()), default=1.0)
        self._blocks = list(_int8_blocks(stored, 127 / max(largest, 1e-12)))
        self._session = ort.InferenceSession(int8_graph(), session_options(1), providers=["CPUExecutionProvider"])
        self._pool = ThreadPoolExecutor(thread_count())

    def top_k(
        self, query_embeds: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """query_embeds (Q, D) -> scores (Q, K) and rows (Q, K), best first; scores are exact, candidates are not."""
        queries = np.atleast_2d(np.asarray(query_embeds, dtype=np.float32))
        count = len(self._stored) if allowed is None else int(allowed.sum())
        k, wanted = min(k, count), min(max(64, CANDIDATES * k), count)
        if k <= 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        peaks = np.maximum(np.abs(queries).max(axis=1, keepdims=True), 1e-12)
        coarse = (np.rint(queries / peaks * MAX_QUERY) + QUERY_ZERO).astype(np.uint8)  # (Q, D)

        def search(block: Int8Block) -> tuple[np.ndarray, np.ndarray]:
            bias = block.offsets if allowed is None else np.where(allowed[block.rows], block.offsets, -np.inf)
            number = np.array([min(wanted, len(block.rows))])
            feeds = {"queries": coarse, "gallery": block.embeds, "bias": bias[None].astype(np.float32), "k": number}
            scores, columns = self._session.run(None, feeds)
            return scores, block.rows[columns]

        found = list(self._pool.map(search, self._blocks))
        scores, rows = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))  # (Q, C)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :wanted]
        return _rescore(queries, np.take_along_axis(rows, best, axis=1), self._stored, k)


def _int8_blocks(stored: StoredEmbeds, scale: float) -> Iterator[Int8Block]:
    """Blocks of `BLOCK` images (the last one is smaller), in the order in which the table is read."""
    embeds, rows = np.empty((BLOCK, stored.dim), dtype=np.int8), np.empty(BLOCK, dtype=np.int64)
    filled = 0

    def block() -> Int8Block:
        columns = np.ascontiguousarray(embeds[:filled].T)
        return Int8Block(columns, rows[:filled].copy(), -QUERY_ZERO * columns.sum(axis=0, dtype=np.float32))

    for own_rows, part in stored.batches():
        while len(part):
            fits = min(len(part), BLOCK - filled)
            embeds[filled : filled + fits], rows[filled : filled + fits] = np.rint(part[:fits] * scale), own_rows[:fits]
            part, own_rows, filled = part[fits:], own_rows[fits:], filled + fits
            if filled == BLOCK:
                yield block()
                filled = 0
    if filled:
        yield block()


class AnnSearch:
    """LanceDB's vector index. Thread-safe."""

    def __init__(self, stored: StoredEmbeds, probes: int = 64) -> None:
        self._stored, self._probes = stored, probes

    def top_k(
        self, query_embeds: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As in `Int8Search.top_k`; `InvalidArgument` if `allowed` is given."""
        if allowed is not None:
            raise InvalidArgument("gallery", "ann takes no filters and no --like; use int8 or exact")
        found = []
        for query in np.atleast_2d(query_embeds):
            search = self._stored.table.search(query.astype(np.float32)).distance_type("dot").nprobes(self._probes)
            ids = (
                search.refine_factor(CANDIDATES)
                .limit(k)
                .with_row_id(True)
                .select(["path", "_distance"])
                .to_arrow()["_rowid"]
            )
            rows = self._stored.rows_of(ids.to_numpy())
            scores, rows_of_one = _rescore(query[None], rows[None], self._stored, len(rows))
            found.append((scores[0], rows_of_one[0]))
        return np.stack([scores for scores, _ in found]), np.stack([rows for _, rows in found])


def _rescore(queries: np.ndarray, rows: np.ndarray, stored: StoredEmbeds, k: int) -> tuple[np.ndarray, np.ndarray]:
    """queries (Q, D), candidates rows (Q, C) -> exact scores and rows (Q, K), best first, equal ones by row."""
    rows = np.sort(rows, axis=1)
    scores = np.stack([stored.take(own) @ query for own, query in zip(rows, queries, strict=True)])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)


def make_ann(index: ImageIndex) -> None:
    """Build the vector index; an older one is replaced.

    Errors: `MiniClipError` below `SMALLEST_ANN` rows, or if it cannot be written, or another process writes it.
    """
    if len(index) < SMALLEST_ANN:
        raise MiniClipError(f"--ann helps from {SMALLEST_ANN:,} images on, and there are {len(index):,}; leave it out")
    dim = index.stored.dim
    settings = IvfPq(
        distance_type="dot",
        num_partitions=max(1, round(len(index) ** 0.5)),
        num_sub_vectors=max(parts for parts in range(1, max(1, dim // 8) + 1) if dim % parts == 0),
    )
    with open_writer(index.folder, read_settings(index.folder), dim), writing(index.folder):
        index.stored.table.checkout_latest()
        index.stored.table.create_index("embedding", config=settings, replace=True)
        ImageIndex.open(index.folder, in_memory=False).write_derived_files()  # the table has a new version


def recall_of(gallery: SearchBackend, index: ImageIndex, text_embeds: np.ndarray, k: int = 10) -> float:
    """Mean share of each text query's exact top `k` that the gallery finds; text_embeds (Q, D)."""
    expected = exact_top_k(index.stored, text_embeds, k)
    _, found = gallery.top_k(text_embeds, k)
    return float(np.mean([len(set(own) & set(exact)) / len(exact) for own, exact in zip(found, expected, strict=True)]))


def exact_top_k(stored: StoredEmbeds, query_embeds: np.ndarray, k: int) -> np.ndarray:
    """(Q, D) -> rows (Q, K), by reading the table once."""
    best_scores, best_rows = np.empty((len(query_embeds), 0)), np.empty((len(query_embeds), 0), dtype=np.int64)
    for rows, part in stored.batches():
        scores = np.concatenate([best_scores, query_embeds @ part.T], axis=1)
        all_rows = np.concatenate([best_rows, np.broadcast_to(rows, (len(query_embeds), len(rows)))], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best_scores, best_rows = (np.take_along_axis(values, best, axis=1) for values in (scores, all_rows))
    return best_rows


def measured_recall(kind: str, gallery: SearchBackend, index: ImageIndex, encoders: OnnxEncoders) -> tuple[float, str]:
    """A gallery's recall and a description of the queries; it is measured once per index version and stored."""
    path, version = index.folder / "recall.json", int(index.stored.table.version)
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if known[kind]["version"] == version:
            return float(known[kind]["recall"]), str(known[kind]["queries"])
    captions = [caption for caption, _ in index.captions.distinct()] if index.captions else []
    texts = captions[:: max(1, len(captions) // 64)][:64] or list(PROBES)
    queries = f"{len(texts)} {'captions of the index' if captions else 'everyday phrases'}"
    recall = recall_of(gallery, index, encoders.encode_texts(texts))
    with contextlib.suppress(MiniClipError):  # for a read-only index, it is measured every time
        write_json(path, {**known, kind: {"version": version, "recall": recall, "queries": queries}})
    return recall, queries
