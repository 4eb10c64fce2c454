"""The time of each node of an ONNX graph, from onnxruntime's profile."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


def profile_nodes(
    open_session: Callable[[ort.SessionOptions], ort.InferenceSession],
    options: ort.SessionOptions,
    feed: dict[str, np.ndarray],
    passes: int = 1,
) -> list[dict[str, Any]]:
    """One event per node and pass: `name`, `dur` in microseconds, and `args` with `op_name` and `provider`."""
    with tempfile.TemporaryDirectory() as tmp:
        options.enable_profiling, options.profile_file_prefix = True, f"{tmp}/profile"
        session = open_session(options)
        for _ in range(passes):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
