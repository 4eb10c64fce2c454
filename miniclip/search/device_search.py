"""Exact top-k on a GPU: the gallery stays in its memory, queries go in and k rows come out (IOBinding).

In: a gallery `(N, D)` float32, queries `(Q, D)`. Out: scores and rows `(Q, K)`, best first.
onnxruntime ranks each column in one thread block, so a single query would leave most of the card idle. So scores are
first ranked in parallel in groups of `GROUP_ROWS` rows, and then the best of all groups are ranked.
"""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from miniclip.inference.providers import CPU, CUDA, open_session, session_options

GROUP_ROWS = 1024  # rows that one thread block sorts in its shared memory
MAX_SCORES = 1 << 26  # per run: 256 MB in float32, in addition to the gallery
CANDIDATES = 4  # times k: rounding to float16 moves a row by only a few ranks
MIN_CANDIDATES = 64


def device_graph(half: bool, filtered: bool) -> bytes:
    """The ONNX graph: `gallery (N, D)`, `queries (D, Q)` -> `scores (K, Q)` float32, `rows (K, Q)` int64.

    Further inputs: `k (1,)`, `pads (4,)` that make N a multiple of the group's rows, `groups (3,)` = (G, rows, -1),
    `first_rows (G, 1, 1)`, `flat (2,)` = (G * k, -1); with `filtered` also `bias (N, 1)`, which is added to every
    row's scores. With `half`, gallery and queries are float16.
    """
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("gallery", kind, ["N", "D"]),
        helper.make_tensor_value_info("queries", kind, ["D", "Q"]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("pads", TensorProto.INT64, [4]),
        helper.make_tensor_value_info("groups", TensorProto.INT64, [3]),
        helper.make_tensor_value_info("first_rows", TensorProto.INT64, ["G", 1, 1]),
        helper.make_tensor_value_info("flat", TensorProto.INT64, [2]),
    ]
    nodes = [helper.make_node("MatMul", ["gallery", "queries"], ["products"])]
    similarity = "products"
    if half:
        nodes.append(helper.make_node("Cast", [similarity], ["products_32"], to=TensorProto.FLOAT))
        similarity = "products_32"
    if filtered:
        inputs.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, ["N", 1]))
        nodes.append(helper.make_node("Add", [similarity, "bias"], ["similarity"]))
        similarity = "similarity"
    nodes += [
        helper.make_node("Pad", [similarity, "pads", "lowest"], ["padded"]),
        helper.make_node("Reshape", ["padded", "groups"], ["grouped"]),  # (G, rows, Q)
        helper.make_node("TopK", ["grouped", "k"], ["group_scores", "places"], axis=1),  # (G, k, Q)
        helper.make_node("Add", ["places", "first_rows"], ["group_rows"]),
        helper.make_node("Reshape", ["group_scores", "flat"], ["flat_scores"]),  # (G * k, Q)
        helper.make_node("Reshape", ["group_rows", "flat"], ["flat_rows"]),
        helper.make_node("TopK", ["flat_scores", "k"], ["scores", "best"], axis=0),
        helper.make_node("GatherElements", ["flat_rows", "best"], ["rows"], axis=0),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["K", "Q"]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, ["K", "Q"]),
    ]
    lowest = numpy_helper.from_array(np.asarray(-np.inf, dtype=np.float32), "lowest")
    graph = helper.make_graph(nodes, "device_search", inputs, outputs, [lowest])
    # the CUDA provider lacks kernels for newer versions of some of these operators, and would run them on the CPU
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class DeviceSearch:
    """A gallery in the GPU's memory; without a GPU, onnxruntime runs the same graphs on the CPU. Thread-safe."""

    def __init__(self, image_embeds: np.ndarray, half: bool = False) -> None:
        """image_embeds (N, D) float32, which stays in use; `half` keeps float16 on the device.

        Errors: onnxruntime's own if the device has too little memory.
        """
        self.image_embeds, self.half = image_embeds, half
        self._sessions: dict[bool, ort.InferenceSession] = {}
        self._kind = np.float16 if half else np.float32
        self.device = "cuda" if CUDA in self._session(filtered=False).get_providers() else "cpu"
        # copy the gallery to the device once, not with every query
        self._gallery = ort.OrtValue.ortvalue_from_numpy(image_embeds.astype(self._kind, copy=False), self.device, 0)

    def _session(self, filtered: bool) -> ort.InferenceSession:
        """A session of this graph, opened on first use. TF32 would change the order of close results."""
        if filtered not in self._sessions:
            graph = device_graph(self.half, filtered)
            self._sessions[filtered] = open_session(graph, session_options(), (CUDA, CPU), exact=True)
        return self._sessions[filtered]

    def top_k(self, queries: np.ndarray, k: int, bias: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """queries (Q, D) float32, bias (N, 1) float32 -> scores and rows (Q, k), k at most N; errors as above."""
        count = len(self.image_embeds)
        found = min(count, max(CANDIDATES * k, MIN_CANDIDATES)) if self.half else k
        step = max(1, min(len(queries), MAX_SCORES // count))
        parts = [self._run(queries[start : start + step], found, bias) for start in range(0, len(queries), step)]
        scores, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        if self.half:
            self._rescore(queries, scores, rows)
        order = np.lexsort((rows, -scores), axis=1)[:, :k]  # equal scores by row
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def _run(self, queries: np.ndarray, k: int, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.image_embeds)
        group_rows = max(GROUP_ROWS, k)
        groups = -(-count // group_rows)
        feeds = {
            "queries": np.ascontiguousarray(queries.T.astype(self._kind, copy=False)),
            "k": np.asarray([k]),
            "pads": np.asarray([0, 0, groups * group_rows - count, 0]),
            "groups": np.asarray([groups, group_rows, len(queries)]),
            "first_rows": (np.arange(groups) * group_rows)[:, None, None],
            "flat": np.asarray([groups * k, len(queries)]),
        }
        if bias is not None:
            feeds["bias"] = bias
        session = self._session(bias is not None)
        binding = session.io_binding()
        binding.bind_ortvalue_input("gallery", self._gallery)
        for name, values in feeds.items():
            binding.bind_cpu_input(name, values)
        binding.bind_output("scores")
        binding.bind_output("rows")
        session.run_with_iobinding(binding)
        scores, rows = binding.copy_outputs_to_cpu()
        return scores.T, rows.T

    def _rescore(self, queries: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> None:
        """Replace float16 scores by float32 ones, except for filtered rows and the padding of the last group."""
        for place, query in enumerate(queries):
            exact = self.image_embeds[np.minimum(rows[place], len(self.image_embeds) - 1)] @ query
            scores[place] = np.where(np.isfinite(scores[place]), exact, scores[place])
