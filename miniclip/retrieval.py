"""Exact top-k through onnxruntime: one matrix product and TopK, on the device the encoders run on.

In: a gallery `image_embeds (N, D)` and queries `(Q, D)`, float32. Out: scores and rows, `(Q, K)`, best first; equal
scores are ordered by row, as a stable sort would.
On a CPU the rows are split into blocks that run side by side: onnxruntime computes a matrix-vector product on one
thread, and one thread cannot read memory as fast as all of them. The gallery is the left factor, which is read as it
lies; a right factor would be packed first. Memory stays bounded: a block's scores fit a core's cache, and many queries
are answered some at a time.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from miniclip.encoders import CPU, CUDA, session_options

BLOCK_SCORES = 1 << 19  # of a block and thread: 2 MB, near what the cache of one core holds
LARGEST_BLOCK, SMALLEST_BLOCK = 1 << 16, 1 << 10  # rows
QUERIES = 64  # answered at a time


def top_k_graph(filtered: bool = False) -> bytes:
    """The ONNX graph: `gallery (N, D)`, `queries (D, Q)`, `k (1,)` -> `scores (K, Q)`, `rows (K, Q)`.

    With `filtered` it also takes `bias (N, 1)`, which is added to every row's scores.
    """
    nodes = [helper.make_node("MatMul", ["gallery", "queries"], ["similarity"])]  # (N, Q)
    if filtered:
        nodes.append(helper.make_node("Add", ["similarity", "bias"], ["biased"]))
    nodes.append(helper.make_node("TopK", [nodes[-1].output[0], "k"], ["scores", "rows"], axis=0, largest=1, sorted=1))
    bias = [helper.make_tensor_value_info("bias", TensorProto.FLOAT, ["N", 1])] if filtered else []
    graph = helper.make_graph(
        nodes,
        "top_k",
        [
            helper.make_tensor_value_info("gallery", TensorProto.FLOAT, ["N", "D"]),
            helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["D", "Q"]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
            *bias,
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["K", "Q"]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["K", "Q"]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Gallery:
    """Embeddings ready to be searched. Thread-safe."""

    def __init__(self, image_embeds: np.ndarray, providers: Sequence[str] = (CPU,), threads: int | None = None) -> None:
        """image_embeds (N, D) float32; `providers` as the encoders really run (`OnnxEncoders.providers`).

        Named CUDA, they put the gallery on the device; where CUDA then does not start, the same path runs on the CPU.
        """
        self.image_embeds = np.ascontiguousarray(image_embeds, dtype=np.float32)
        self.bound = CUDA in providers
        self._threads = threads or os.cpu_count() or 1
        self._providers = list(providers)
        self._instead: Gallery | None = None  # once the GPU has failed
        self._session = self._open()
        if self.bound:  # the gallery crosses to the device once, not with every query
            device = "cuda" if CUDA in self._session.get_providers() else "cpu"
            self._on_device = ort.OrtValue.ortvalue_from_numpy(self.image_embeds, device, 0)
        else:
            self._pool = ThreadPoolExecutor(self._threads)

    def __len__(self) -> int:
        return len(self.image_embeds)

    def _open(self, filtered: bool = False) -> ort.InferenceSession:
        options = session_options(None if self.bound else 1)
        return ort.InferenceSession(top_k_graph(filtered), options, providers=self._providers)

    @cached_property
    def _filtered_session(self) -> ort.InferenceSession:
        return self._open(filtered=True)

    def top_k(
        self, query_embeds: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """query_embeds (Q, D) -> scores (Q, K) float32 and rows (Q, K) int64, K = min(k, N), best first.

        With `allowed` (N,) bool, only those rows are found, and N is their number.
        """
        if self._instead is None:
            try:
                return self._top_k(query_embeds, k, allowed)
            except Exception as error:  # onnxruntime's own types: no memory on the device, a lost driver
                if not self.bound:
                    raise
                reason = " ".join(str(error).split())[:200]
                print(f"the GPU failed while it searched, going on with the CPU: {reason}", file=sys.stderr)
                self._instead = Gallery(self.image_embeds, threads=self._threads)
        return self._instead.top_k(query_embeds, k, allowed)

    def _top_k(self, query_embeds: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        queries = np.atleast_2d(np.asarray(query_embeds, dtype=np.float32))
        bias = None if allowed is None else np.where(allowed, np.float32(0), np.float32(-np.inf))[:, None]
        k = min(k, len(self) if allowed is None else int(allowed.sum()))
        if k <= 0 or len(queries) == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        search = self._top_k_bound if self.bound else self._top_k_blocks
        parts = [
            search(np.ascontiguousarray(queries[start : start + QUERIES].T), k, bias)
            for start in range(0, len(queries), QUERIES)
        ]
        scores, rows = (np.concatenate(part, axis=1).T for part in zip(*parts, strict=True))
        return np.ascontiguousarray(scores), np.ascontiguousarray(rows)

    def _top_k_bound(self, queries: np.ndarray, k: int, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """queries (D, Q), bias (N, 1) -> scores and rows (K, Q)."""
        session = self._session if bias is None else self._filtered_session
        binding = session.io_binding()
        if bias is not None:
            binding.bind_cpu_input("bias", bias)
        binding.bind_ortvalue_input("gallery", self._on_device)
        binding.bind_cpu_input("queries", queries)
        binding.bind_cpu_input("k", np.asarray([k], dtype=np.int64))
        binding.bind_output("scores")
        binding.bind_output("rows")
        session.run_with_iobinding(binding)
        scores, rows = binding.copy_outputs_to_cpu()
        return scores, rows

    def _top_k_blocks(self, queries: np.ndarray, k: int, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """queries (D, Q), bias (N, 1) -> scores and rows (K, Q)."""
        session = self._session if bias is None else self._filtered_session
        # every thread gets work even in a small gallery
        block = min(LARGEST_BLOCK, BLOCK_SCORES // queries.shape[1], -(-len(self) // self._threads))
        starts = range(0, len(self), max(block, SMALLEST_BLOCK))

        def search(start: int) -> tuple[np.ndarray, np.ndarray]:
            gallery = self.image_embeds[start : start + starts.step]
            feeds = {"gallery": gallery, "queries": queries, "k": np.asarray([min(k, len(gallery))], dtype=np.int64)}
            if bias is not None:
                feeds["bias"] = bias[start : start + starts.step]
            scores, rows = session.run(["scores", "rows"], feeds)
            return scores, rows + start

        blocks = [search(0)] if len(starts) == 1 else list(self._pool.map(search, starts))
        return _merge(np.concatenate([scores for scores, _ in blocks]), np.concatenate([rows for _, rows in blocks]), k)


def _merge(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best k of all blocks' best, (C, Q) -> (K, Q), the block of the first rows first."""
    best = np.empty((k, scores.shape[1]), dtype=np.int64)
    for query, own in enumerate(np.ascontiguousarray(scores.T)):
        # sorting what is not below the k-th best is faster than sorting all; a stable sort leaves ties in row order
        candidates = np.flatnonzero(own >= np.partition(own, len(own) - k)[len(own) - k])
        best[:, query] = candidates[np.argsort(-own[candidates], kind="stable")[:k]]
    return np.take_along_axis(scores, best, axis=0), np.take_along_axis(rows, best, axis=0)
