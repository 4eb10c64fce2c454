"""The PyTorch model with the interface of a bundle's encoders.

In: a `DualEncoder` with its preprocessing. Out: `TorchEncoders`, which evaluation and benchmark use like
`OnnxEncoders`.
"""

import contextlib
import ctypes
from typing import Any, cast

import numpy as np
import torch

from miniclip.data.transform import ImageTransform
from miniclip.inference.encoders import Encoders
from miniclip.inference.tokenizer import Tokenizer
from miniclip.models.device import Device, cpu_device
from miniclip.models.dual_encoder import LOGIT_SCALE_MAX, DualEncoder


def reuse_freed_memory() -> None:
    """Tell glibc to keep large freed blocks for the next layer instead of returning them to the system.

    The output of a convolution is larger than glibc's threshold for a separate mapping, so every layer would request
    new zeroed pages from the kernel. That alone took two thirds of the time here. Without glibc, this function does
    nothing.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # <malloc.h>
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


class TorchEncoders(Encoders):
    """The PyTorch model with the same interface as a bundle, so that the same code measures both.

    `autocast` computes in bfloat16, or in the type of `device`, which is the CPU by default. `reuse_memory` calls
    `reuse_freed_memory`, which affects the whole process.
    """

    def __init__(
        self,
        model: DualEncoder,
        transform: ImageTransform,
        tokenizer: Tokenizer,
        autocast: bool = False,
        reuse_memory: bool = True,
        device: Device | None = None,
    ) -> None:
        self.device = device or cpu_device()
        self.model = model.to(self.device.torch_device).eval()
        self.transform, self.tokenizer = transform, tokenizer
        self.dim = int(model.text_head.projection.out_features)
        self.logit_scale = float(model.logit_scale.detach().clamp(max=LOGIT_SCALE_MAX))
        self._autocast = autocast
        if reuse_memory:
            reuse_freed_memory()

    def _run(self, encode: Any, *arrays: np.ndarray) -> np.ndarray:
        half = self.device.dtype if self.device.dtype != torch.float32 else torch.bfloat16
        with torch.inference_mode(), torch.autocast(self.device.torch_device.type, half, enabled=self._autocast):
            embeds = encode(*map(self.device.put, arrays))
        return cast(np.ndarray, embeds.float().cpu().numpy())

    def embed_pixels(self, pixel_values: np.ndarray) -> np.ndarray:
        return self._run(self.model.encode_image, pixel_values)

    def embed_tokens(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        return self._run(self.model.encode_text, input_ids, attention_mask)
