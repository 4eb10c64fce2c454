"""Export: a run folder in, an ONNX bundle with a certificate of parity out. `python -m export --help`."""

import miniclip  # noqa: F401  # before onnxruntime, whose telemetry it turns off
