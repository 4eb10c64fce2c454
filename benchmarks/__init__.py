"""The measurements in the documents. Run each with `python -m benchmarks.NAME`."""

import miniclip  # noqa: F401  # before onnxruntime, whose telemetry it turns off
