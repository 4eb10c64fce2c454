"""Exact top-k through onnxruntime: one matrix product and TopK, on the device of the encoders.

In: a gallery `image_embeds (N, D)` and queries `(Q, D)`, float32. Out: scores and rows, `(Q, K)`, best first; equal
scores are ordered by row, as a stable sort would.
On a CPU, the rows are split into blocks that run in parallel: onnxruntime computes a matrix-vector product on one
thread, and one thread cannot read memory as fast as all threads. The gallery is the left factor, which is read in
place; a right factor would first be packed. Ranking all rows would take a tenth of the time of the product of many
queries. So once each query has k rows, only rows that reach the worst of them are ranked. Memory is limited: the scores
of a block fit into a core's cache, and many queries are answered in groups.
On a GPU, the gallery stays in its memory, in float32, or in float16 if it does not fit. Scores in float16 only choose
candidates, whose scores are then computed in float32.
"""

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort

from miniclip.cpu import thread_count
from miniclip.errors import one_line
from miniclip.inference.providers import CPU, CUDA, open_session, session_options
from miniclip.search.device_search import DeviceSearch

BLOCK_SCORES = 1 << 19  # per block and thread: 2 MB, about the cache of one core
LARGEST_BLOCK, SMALLEST_BLOCK = 1 << 16, 1 << 10  # rows
QUERIES = 64  # answered at a time
NO_ROW = np.iinfo(np.int64).max  # sorts after every row
MAX_HITS = 1 / 32  # of a block's scores; for more, TopK is faster than sorting


def search_graph(filtered: bool = False, ranked: bool = True) -> bytes:
    """The ONNX graph: `gallery (N, D)`, `queries (D, Q)`, `k (1,)` -> `scores (K, Q)`, `rows (K, Q)`.

    With `filtered` it also takes `bias (N, 1)`, which is added to every row's scores. Unless `ranked`, it takes no `k`
    and gives all scores, `similarity (N, Q)`.
    """
    import onnx
    from onnx import TensorProto, helper

    product = "products" if filtered else "similarity"
    nodes = [helper.make_node("MatMul", ["gallery", "queries"], [product])]
    inputs = [
        helper.make_tensor_value_info("gallery", TensorProto.FLOAT, ["N", "D"]),
        helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["D", "Q"]),
    ]
    outputs = [helper.make_tensor_value_info("similarity", TensorProto.FLOAT, ["N", "Q"])]
    if filtered:
        nodes.append(helper.make_node("Add", [product, "bias"], ["similarity"]))
        inputs.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, ["N", 1]))
    if ranked:
        nodes.append(helper.make_node("TopK", ["similarity", "k"], ["scores", "rows"], axis=0, largest=1, sorted=1))
        inputs.append(helper.make_tensor_value_info("k", TensorProto.INT64, [1]))
        outputs = [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["K", "Q"]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["K", "Q"]),
        ]
    graph = helper.make_graph(nodes, "search", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class ExactSearch:
    """Embeddings ready to be searched. Thread-safe."""

    def __init__(self, image_embeds: np.ndarray, providers: Sequence[str] = (CPU,), threads: int | None = None) -> None:
        """image_embeds (N, D) float32; `providers` are those that the encoders really use (`OnnxEncoders.providers`).

        With CUDA, the gallery is on the device; if CUDA does not start, the same graphs run on the CPU.
        """
        self.image_embeds = np.ascontiguousarray(image_embeds, dtype=np.float32)
        self._threads = threads or thread_count()
        self._leaving = threading.Lock()
        self._sessions: dict[tuple[bool, bool], ort.InferenceSession] = {}
        self._pool = ThreadPoolExecutor(self._threads)
        self._on_device: DeviceSearch | None = None
        if CUDA in providers:
            self._put_on_device(half=False)

    def __len__(self) -> int:
        return len(self.image_embeds)

    def _session(self, filtered: bool, ranked: bool = True) -> ort.InferenceSession:
        """A session of this graph, opened on first use."""
        session = self._sessions.get((filtered, ranked))
        if session is None:
            session = open_session(search_graph(filtered, ranked), session_options(1), [CPU])
            self._sessions[filtered, ranked] = session
        return session

    def top_k(
        self, query_embeds: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """query_embeds (Q, D) -> scores (Q, K) float32 and rows (Q, K) int64, K = min(k, N), best first.

        With `allowed` (N,) bool, only these rows are searched, and N is their number.
        """
        queries = np.atleast_2d(np.asarray(query_embeds, dtype=np.float32))
        if (
            queries.shape[1] != self.image_embeds.shape[1]
        ):  # checked here, because otherwise a GPU would seem to have failed
            raise ValueError(f"queries of {queries.shape[1]} dimensions, a gallery of {self.image_embeds.shape[1]}")
        bias = None if allowed is None else np.where(allowed, np.float32(0), np.float32(-np.inf))[:, None]
        k = min(k, len(self) if allowed is None else int(allowed.sum()))
        if k <= 0 or len(queries) == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        while (on_device := self._on_device) is not None:
            try:
                return on_device.top_k(queries, k, bias)
            except Exception as error:  # onnxruntime's types: too little memory, a lost driver
                self._leave(on_device, error)
        parts = [
            self._top_k_blocks(np.ascontiguousarray(queries[start : start + QUERIES].T), k, bias)
            for start in range(0, len(queries), QUERIES)
        ]
        scores, rows = (np.concatenate(part, axis=1).T for part in zip(*parts, strict=True))
        return np.ascontiguousarray(scores), np.ascontiguousarray(rows)

    @property
    def where(self) -> str:
        """The device of the next search, as shown to the user."""
        if self._on_device is None:
            return "cpu float32"
        return f"{self._on_device.device} {'float16' if self._on_device.half else 'float32'}"

    def _put_on_device(self, half: bool) -> None:
        """Put the gallery on the device; if that fails, try float16, then stay on the CPU."""
        try:
            self._on_device = DeviceSearch(self.image_embeds, half)
        except Exception as error:  # as above
            self._step_down(half, error)

    def _leave(self, failed: DeviceSearch, error: Exception) -> None:
        with self._leaving:  # if many searches fail at once, only one acts
            if self._on_device is failed:
                self._on_device = None  # before the next one needs memory
                self._step_down(failed.half, error)

    def _step_down(self, half: bool, error: Exception) -> None:
        if half:
            print(f"the GPU failed during a search, continuing on the CPU: {one_line(error)}", file=sys.stderr)
            return
        print(f"the GPU cannot search the gallery in float32, trying float16: {one_line(error)}", file=sys.stderr)
        self._put_on_device(half=True)

    def _top_k_blocks(self, queries: np.ndarray, k: int, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """queries (D, Q), bias (N, 1) -> scores and rows (K, Q)."""
        # every thread gets work even in a small gallery
        block = min(LARGEST_BLOCK, BLOCK_SCORES // queries.shape[1], -(-len(self) // self._threads))
        starts = range(0, len(self), max(block, SMALLEST_BLOCK))
        best = _Best(k, queries.shape[1])

        def search(start: int) -> None:
            gallery = self.image_embeds[start : start + starts.step]
            feeds = {"gallery": gallery, "queries": queries}
            if bias is not None:
                feeds["bias"] = bias[start : start + starts.step]
            if (worst := best.worst) is not None:
                (similarity,) = self._session(bias is not None, ranked=False).run(["similarity"], feeds)
                hits = np.flatnonzero(similarity >= worst)
                if len(hits) <= MAX_HITS * similarity.size:
                    best.offer(*_columns(hits, similarity, start))
                    return
            feeds["k"] = np.asarray([min(k, len(gallery))], dtype=np.int64)
            scores, rows = self._session(bias is not None).run(["scores", "rows"], feeds)
            best.offer(scores, rows + start)

        if len(starts) == 1:
            search(0)
        else:
            list(self._pool.map(search, starts))
        return best.scores, best.rows


class _Best:
    """The best k rows of each query so far: `scores`, `rows` (k, Q), best first, ties by row. Thread-safe."""

    def __init__(self, k: int, queries: int) -> None:
        self.scores = np.full((k, queries), -np.inf, dtype=np.float32)
        self.rows = np.full((k, queries), NO_ROW, dtype=np.int64)
        self._changing = threading.Lock()

    @property
    def worst(self) -> np.ndarray | None:
        """(Q,): the score that a row must reach to be among the best; None while some query has fewer than k rows."""
        worst = self.scores[-1]
        return worst if np.isfinite(worst).all() else None

    def offer(self, scores: np.ndarray, rows: np.ndarray) -> None:
        """Merge the better ones of these candidates, (C, Q) each, in any order."""
        with self._changing:
            all_scores, all_rows = np.concatenate([self.scores, scores]), np.concatenate([self.rows, rows])
            order = np.lexsort((all_rows, -all_scores), axis=0)[: len(self.scores)]
            # two assignments: a thread that reads only `scores` in between sees valid old or new ones
            self.rows = np.take_along_axis(all_rows, order, axis=0)
            self.scores = np.take_along_axis(all_scores, order, axis=0)


def _columns(hits: np.ndarray, similarity: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat places in `similarity` (N, Q) -> scores and rows (C, Q); `NO_ROW` fills columns with fewer hits."""
    rows, queries = np.divmod(hits, similarity.shape[1])
    counts = np.bincount(queries, minlength=similarity.shape[1])
    by_query = np.argsort(queries, kind="stable")
    place = np.empty_like(rows)  # of each hit in its column
    place[by_query] = np.arange(len(hits)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = int(counts.max()), similarity.shape[1]
    scores_of, rows_of = np.full(shape, -np.inf, dtype=np.float32), np.full(shape, NO_ROW, dtype=np.int64)
    scores_of[place, queries], rows_of[place, queries] = similarity[rows, queries], rows + start
    return scores_of, rows_of
