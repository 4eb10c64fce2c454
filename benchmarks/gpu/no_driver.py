"""Request CUDA when no GPU can start. python -m benchmarks.gpu.no_driver BUNDLE, with CUDA_VISIBLE_DEVICES=-1

It prints one JSON object. Standard error has the line that a user would see.
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
    assert not torch.cuda.is_available()  # importing torch loads CUDA's libraries, so only the device is missing
    bundle = Bundle.open(Path(sys.argv[1]))
    # without a GPU, onnxruntime may lack the CUDA provider; `available` claims it, so that its start fails in any case
    encoders = OnnxEncoders(bundle, "cuda", "fp32", available=[CUDA, CPU])
    embeds, expected = (own.encode_texts(TEXTS) for own in (encoders, OnnxEncoders(bundle, "cpu", "fp32")))
    print(json.dumps({"providers": list(encoders.providers), "same": bool(np.array_equal(embeds, expected))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
