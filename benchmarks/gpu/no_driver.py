"""Request CUDA where no GPU starts. python -m benchmarks.gpu.no_driver BUNDLE, with CUDA_VISIBLE_DEVICES=-1

Prints one JSON object; standard error has the line that a user would see.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.providers import CPU, CUDA

TEXTS = ["a big red circle", "a small blue square on green"]


def main() -> int:
    assert not torch.cuda.is_available()  # torch is imported for CUDA's libraries, so that only the device is missing
    bundle = Bundle.open(Path(sys.argv[1]))
    # `available` claims the CUDA provider: without a GPU onnxruntime may not have it, and it fails to start either way
    encoders = OnnxEncoders(bundle, "cuda", "fp32", available=[CUDA, CPU])
    embeds, expected = (own.encode_texts(TEXTS) for own in (encoders, OnnxEncoders(bundle, "cpu", "fp32")))
    print(json.dumps({"providers": list(encoders.providers), "same": bool(np.array_equal(embeds, expected))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
