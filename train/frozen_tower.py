"""Compute the frozen part of a tower in PyTorch or, if that is faster on this CPU, in onnxruntime.

In: a tower, and the number of its trained blocks. Out: features of images or tokens, or the input of the first trained
block. If a pass would take longer than `MIN_PASS_S` in PyTorch, the part is exported to an fp32 graph, and the values
and the speed of both are compared on one batch. The graph and the choice are cached, so that later passes, such as
those over other views of the images, are computed in the same way.
"""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from tqdm import tqdm

from miniclip.cache import cache_folder, write_cached
from miniclip.cpu import thread_count
from miniclip.errors import MiniClipError
from miniclip.inference.providers import CPU, session_options
from miniclip.models.architectures import native_size
from miniclip.models.device import Device
from miniclip.models.dual_encoder import TextTower, VisionTower
from miniclip.models.onnx_graph import onnx_graph

from .blocks import blocks_of, example_image, example_text, frozen_parameters, lower_part

MIN_PASS_S = 60.0  # in PyTorch; an export takes 5 to 15 seconds
MAX_DIFFERENCE = 1e-4  # between the graph and PyTorch in float32, relative to the largest value of a batch


class FrozenTower:
    """The tower without its last `trained_blocks` blocks and the parts above them; with 0, the whole tower."""

    def __init__(self, tower: VisionTower | TextTower, trained_blocks: int, device: Device) -> None:
        self.tower, self.trained_blocks, self.device = tower.eval(), trained_blocks, device
        self._part: Callable[..., Tensor] = tower
        learning: set[str] = set()
        if trained_blocks:
            first = len(blocks_of(tower)) - trained_blocks
            self._part = lambda *inputs: lower_part(tower, first, *inputs)
            learning = {name for name, _ in tower.named_parameters()}
            learning -= frozen_parameters(tower, first, *_example(tower))
        self.weights_hash = weights_hash(tower, without=learning)
        self._session: ort.InferenceSession | None = None
        self._pool = ThreadPoolExecutor(thread_count())  # starts no thread before it is used

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """A batch of `pixel_values`, or of `input_ids, attention_mask` -> (B, ...) float32."""
        return self.in_torch(*inputs) if self._session is None else self.in_onnxruntime(*inputs)

    def begin(self, batches: int, *inputs: np.ndarray) -> np.ndarray:
        """Compute the first of `batches` batches, and choose the engine for all of them."""
        if self.device.is_cpu and self._session is None and not self._reopen(inputs):
            started = time.perf_counter()
            values = self.in_torch(*inputs)
            if (time.perf_counter() - started) * batches <= MIN_PASS_S:
                return values
            self._choose(inputs)
        return self(*inputs)

    def in_torch(self, *inputs: np.ndarray, exact: bool = False) -> np.ndarray:
        """As `__call__`, in PyTorch; `exact` turns autocast off."""
        tensors = [self.device.put(values) for values in inputs]
        if tensors[0].ndim == 4:
            tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), contextlib.nullcontext() if exact else self.device.autocast():
            return self._part(*tensors).float().cpu().numpy()

    def in_onnxruntime(self, *inputs: np.ndarray) -> np.ndarray:
        """As `__call__`, in onnxruntime: each core computes one image at a time, or a part of a batch of texts."""
        assert self._session is not None
        session, names = self._session, [item.name for item in self._session.get_inputs()]
        rows = 1 if len(inputs) == 1 else -(-len(inputs[0]) // thread_count())
        parts = [[values[i : i + rows] for values in inputs] for i in range(0, len(inputs[0]), rows)]
        outputs = self._pool.map(lambda part: session.run(None, dict(zip(names, part, strict=True)))[0], parts)
        return np.concatenate(list(outputs))

    def open_session(self, *inputs: np.ndarray) -> bytes:
        """Export the frozen part with this batch as the example, open a session, and return the graph.

        Errors: `MiniClipError` when its values differ from PyTorch's; exceptions of torch when it cannot be exported.
        """
        graph = _export(self.tower, self.trained_blocks, inputs)
        self._session = _session(graph)
        expected, found = self.in_torch(*inputs, exact=True), self.in_onnxruntime(*inputs)
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not difference <= MAX_DIFFERENCE:
            raise MiniClipError(f"its values differ by {difference:.1e}")
        return graph

    def _choose(self, inputs: Sequence[np.ndarray]) -> None:
        kind = "images" if len(inputs) == 1 else "texts"
        try:
            graph = self.open_session(*inputs)
        except Exception as error:  # the exporter raises many types, and training continues without the graph
            self._session = None
            first_line = re.split(r"[\n\x1b]", str(error))[0]  # torch adds advice, in colours
            reason = first_line.strip(" .") or type(error).__name__
            tqdm.write(f"features of {kind}: PyTorch, because the tower cannot run in onnxruntime ({reason})")
        else:
            ratio = _seconds(self.in_torch, inputs) / _seconds(self.in_onnxruntime, inputs)
            if ratio > 1:
                write_cached(self._file(inputs, "onnx"), graph)
                tqdm.write(f"features of {kind}: onnxruntime, {ratio:.1f} times as fast here as PyTorch")
            else:
                self._session = None
                tqdm.write(f"features of {kind}: PyTorch, {1 / ratio:.1f} times as fast here as onnxruntime")
        chosen = {"onnxruntime": self._session is not None}
        write_cached(self._file(inputs, "json"), json.dumps(chosen).encode())

    def _reopen(self, inputs: Sequence[np.ndarray]) -> bool:
        """Use the stored choice; False if there is none."""
        try:
            if json.loads(self._file(inputs, "json").read_text(encoding="utf-8"))["onnxruntime"]:
                self._session = _session(self._file(inputs, "onnx").read_bytes())
        except Exception:  # missing, damaged, or unsupported by this onnxruntime: it will be exported again
            return False
        return True

    def _file(self, inputs: Sequence[np.ndarray], suffix: str) -> Path:
        key = [
            self.weights_hash, self.tower.pooling, self.trained_blocks, inputs[0].shape[2:], str(self.device.dtype),
            torch.__version__, ort.__version__,
        ]  # fmt: skip
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
        return cache_folder() / "towers" / f"{digest}.{suffix}"


class _ImageGraph(nn.Module):
    """The frozen part as a module with named inputs. The exporter drops the nodes that its output does not need."""

    def __init__(self, tower: nn.Module, trained_blocks: int) -> None:
        super().__init__()
        self.tower, self.first = tower, len(blocks_of(tower)) - trained_blocks if trained_blocks else None

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self._values(pixel_values)

    def _values(self, *inputs: Tensor) -> Tensor:
        if self.first is None:
            return cast(Tensor, self.tower(*inputs))
        return lower_part(self.tower, self.first, *inputs, to_end=True)


class _TextGraph(_ImageGraph):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        return self._values(input_ids, attention_mask)


def _export(tower: VisionTower | TextTower, trained_blocks: int, inputs: Sequence[np.ndarray]) -> bytes:
    """Export a graph for single images, or for texts in batches of any size and length."""
    if len(inputs) == 1:
        pixel_values = torch.from_numpy(inputs[0][:1])
        graph = onnx_graph(_ImageGraph(tower, trained_blocks), {"pixel_values": pixel_values}, None, "values")
    else:
        longest = cast(TextTower, tower).max_positions
        axes: dict[int, Any] = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest)}
        named = dict(zip(("input_ids", "attention_mask"), map(torch.from_numpy, inputs), strict=True))
        graph = onnx_graph(_TextGraph(tower, trained_blocks), named, dict.fromkeys(named, axes), "values")
    return cast(bytes, graph.SerializeToString())


def _session(graph: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(graph, session_options(1), providers=[CPU])


def _seconds(compute: Callable[..., np.ndarray], inputs: Sequence[np.ndarray]) -> float:
    """The shortest time of three passes."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        compute(*inputs)
        times.append(time.perf_counter() - started)
    return min(times)


def weights_hash(module: nn.Module, without: Collection[str] = ()) -> str:
    """SHA-256 over every parameter and buffer by name, except those named in `without`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name not in without:
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _example(tower: VisionTower | TextTower) -> tuple[Tensor, ...]:
    if isinstance(tower, TextTower):
        return example_text(tower)
    return (example_image(*native_size(tower.backbone), next(tower.parameters()).device),)
