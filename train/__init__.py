"""Training: captions and images in, a run folder out. `python -m train --help`."""

import miniclip  # noqa: F401  # before onnxruntime, whose telemetry it turns off
