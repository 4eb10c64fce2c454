"""Tools for ONNX graphs: run a graph, read its inner tensors, find its layers, edit it, save it."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.transformers.onnx_model import OnnxModel

from miniclip.inference.onnx_encoders import TEXTS_A_CORE
from miniclip.inference.providers import CPU, session_options
from miniclip.inference.tokenizer import Tokenizer
from miniclip.models.onnx_graph import quiet_tools

IMAGE_BATCH = 8

Feeds = list[dict[str, np.ndarray]]  # batches of graph inputs


def image_feeds(pixel_values: np.ndarray) -> Feeds:
    """(N, 3, H, W) -> batches of `pixel_values`."""
    return [{"pixel_values": pixel_values[i : i + IMAGE_BATCH]} for i in range(0, len(pixel_values), IMAGE_BATCH)]


def text_feeds(tokenizer: Tokenizer, texts: Sequence[str]) -> Feeds:
    """Texts -> batches of `input_ids, attention_mask`, in the same order, of the batch size of encoders on a CPU."""
    starts = range(0, len(texts), TEXTS_A_CORE)
    batches = (tokenizer(texts[start : start + TEXTS_A_CORE]) for start in starts)
    return [{"input_ids": input_ids, "attention_mask": attention_mask} for input_ids, attention_mask in batches]


def embed(model: onnx.ModelProto | Path, feeds: Feeds) -> np.ndarray:
    """The graph's output for all feeds, (N, D)."""
    session = _session(model)
    outputs: list[np.ndarray] = [session.run(None, feed)[0] for feed in feeds]
    return np.concatenate(outputs)


def look_inside(model: onnx.ModelProto, names: list[str], feeds: Feeds) -> Iterator[list[np.ndarray]]:
    """Tensors inside the graph as `(rows, d)`, batch by batch: one row per image, text or token, without padding."""
    for feed, tensors in zip(feeds, run_inside(model, names, feeds), strict=True):
        yield [token_rows(values, feed.get("attention_mask")) for values in tensors]


def run_inside(model: onnx.ModelProto, names: list[str], feeds: Feeds) -> Iterator[list[np.ndarray]]:
    """Tensors inside the graph in their original shapes, batch by batch."""
    if not names:  # onnxruntime would return all outputs
        yield from ([] for _ in feeds)
        return
    opened = copy.deepcopy(model)
    for name in dict.fromkeys(names):
        opened.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = _session(opened)
    for feed in feeds:
        yield session.run(names, feed)


def token_rows(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """(..., d) -> (rows, d), without the tokens that `mask` marks as padding."""
    if values.ndim == 3 and mask is not None and values.shape[:2] == mask.shape:
        return np.asarray(values[mask.astype(bool)])
    return np.reshape(values, (-1, values.shape[-1]))


def _session(model: onnx.ModelProto | Path) -> ort.InferenceSession:
    source = model if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, session_options(), providers=[CPU])


def is_convolutional(model: onnx.ModelProto) -> bool:
    """Whether the tower has more than one convolution; a transformer has only the one that makes patches."""
    return len([node for node in model.graph.node if node.op_type == "Conv"]) > 1


class Wiring:
    """The connections of a graph: the node that makes each tensor, the nodes that read it, and the constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers = {name: node for node in graph.node for name in node.output}
        self.constants = {item.name: item for item in graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def constant(self, name: str) -> np.ndarray | None:
        """The values of a constant; None if no constant has this name."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def made_by(self, name: str, operator: str) -> onnx.NodeProto | None:
        """The node that makes the tensor, if it has this operator."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type == operator else None

    def read_by(self, name: str, operator: str) -> onnx.NodeProto | None:
        """The tensor's reader, if there is only one and it has this operator."""
        nodes = self.readers.get(name, [])
        return nodes[0] if len(nodes) == 1 and nodes[0].op_type == operator else None


def constant_products(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Matrix products with constant weights, grouped by input; query, key and value are one group."""
    constants = {item.name for item in model.graph.initializer}
    products: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            products.setdefault(node.input[0], []).append(node)
    return products


def first_convolutions(model: onnx.ModelProto, count: int) -> list[str]:
    """Names of the first convolutions, and of the activations and additions that read their results."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"][:count]
    outputs = {name for node in convolutions for name in node.output}
    readers = [n for n in model.graph.node if n.op_type in ("Clip", "Relu", "Add") and outputs & set(n.input)]
    return [node.name for node in [*convolutions, *readers]]


def insert_before(graph: onnx.GraphProto, node: onnx.NodeProto, steps: Sequence[onnx.NodeProto]) -> None:
    """Insert nodes into the graph before one of its nodes."""
    place = list(graph.node).index(node)
    for offset, step in enumerate(steps):
        graph.node.insert(place + offset, step)


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and constants that no node reads."""
    graph = model.graph
    outputs = {output.name for output in graph.output}
    while True:
        used = outputs | {name for node in graph.node for name in node.input}
        idle = [node for node in graph.node if used.isdisjoint(node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Check the graph and write it to one file; the same graph gives the same bytes."""
    with quiet_tools():  # converters append casts at the end, but ONNX requires topological order
        OnnxModel(model).topological_sort(is_deterministic=True)
    forget_origin(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def forget_origin(model: onnx.ModelProto) -> None:
    """Remove source lines, module names and inferred shapes, which inference does not need and which vary."""
    model.producer_name, model.producer_version, model.doc_string = "miniclip", "", ""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    graph.name, graph.doc_string = "tower", ""
    for item in [*graph.node, *graph.input, *graph.output, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
