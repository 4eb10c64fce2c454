"""The inputs of both towers in training, up to their features.

In: a tower, the number of its trained blocks, and images or tokens. Out: `features (B, d)` of any rows, with gradients
if any block is trained. There are three cases: cached features (no trained blocks), the cached input of the first
trained block, or the whole tower, fed with images or tokens.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from miniclip.data.prefetch import prefetch
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.models.device import Device, cpu_device
from miniclip.models.dual_encoder import TextTower, VisionTower

from .augment import View
from .blocks import UpperPart, blocks_of, example_image, example_text, frozen_parameters, trained_parameters
from .decoded import DecodedImages, Prefetch, decode
from .feature_cache import image_features, text_features
from .tokens import Tokens


class TowerInput:
    """The common part of `Images` and `Texts`. `example` is one image or text."""

    def __init__(
        self,
        tower: VisionTower | TextTower,
        trained_blocks: int,
        example: tuple[Tensor, ...],
        device: Device | None = None,
    ) -> None:
        self.device = device or cpu_device()  # where the tower is
        self.learns = trained_blocks > 0  # whether any block is trained
        self.blocks = blocks_of(tower) if self.learns else []
        self.tower, self.trained_blocks = tower, min(trained_blocks, len(self.blocks))
        self.whole = trained_blocks > len(self.blocks)  # trained with the layers below its blocks
        self.example = example
        self._first = len(self.blocks) - self.trained_blocks
        self.upper = None if self.whole or not self.learns else UpperPart(tower, self._first, *example)

    def parameters_by_depth(self) -> list[tuple[nn.Parameter, int]]:
        """Every trained parameter, and the number of blocks above it."""
        if not self.learns:
            return []
        named = dict(self.tower.named_parameters())
        below = frozen_parameters(self.tower, 0, *self.example)
        depth = {id(named[name]): len(self.blocks) for name in below}
        for number, block in enumerate(reversed(self.blocks)):
            depth |= dict.fromkeys(_ids([block]), number)
        trained = set(named) if self.whole else trained_parameters(self.tower, self._first, *self.example)
        # parts that are neither in a block nor below the blocks are above them: final norms, the last convolution
        return [(parameter, depth.get(id(parameter), 0)) for name, parameter in named.items() if name in trained]

    def train(self, mode: bool) -> None:
        """Turn dropout on or off. Batch norms keep their statistics, which small bfloat16 batches would distort."""
        self.tower.eval()
        if mode and self.learns:
            for block in [self.tower] if self.whole else self.blocks[self._first :]:
                for part in block.modules():
                    part.training = not isinstance(part, nn.modules.batchnorm._BatchNorm)

    def _run(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        with self.device.autocast():
            return cast(Tensor, module(*inputs)).float()


class Frozen:
    """Features of a frozen part by row, on the device if they fit, otherwise on disk."""

    def __init__(self, values: np.ndarray, device: Device) -> None:
        self._values, self._device = values, device
        self._resident = device.put(np.array(values)) if device.has_room_for(values.nbytes) else None

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """(*rows.shape, ...) float32, on the device."""
        if self._resident is not None:
            return self._resident[self._device.put(rows)].float()
        return self._device.put(self._values[rows]).float()


class Images(TowerInput):
    """The input of the vision tower. Cached images have `views` views; view 0 is the image itself."""

    def __init__(
        self,
        tower: VisionTower,
        trained_blocks: int,
        transform: ImageTransform,
        paths: Sequence[Path],
        views: int,
        seed: int,
        device: Device | None = None,
    ) -> None:
        device = device or cpu_device()
        image = example_image(transform.height_px, transform.width_px, device.torch_device)
        super().__init__(tower, trained_blocks, (image,), device)
        self.paths, self.transform, self.views, self.seed = list(paths), transform, views, seed
        self._kept = np.arange(len(paths))
        cast(Any, tower).to(memory_format=torch.channels_last)
        if self.learns and self.device.is_cpu:
            _depthwise_in_float32(tower)
        self._cached: list[Frozen] = []
        self._decoded: DecodedImages | None = None
        self._prefetch = Prefetch(self._load_row)
        self.skipped: dict[int, str] = {}
        if not self.whole:
            learning = self.trained_blocks if self.learns else 0
            found = [
                image_features(tower, View(transform, number, seed), paths, learning, self.device)
                for number in range(views)
            ]
            self._cached = [Frozen(own.values, self.device) for own in found]
            self.skipped = {row: reason for own in found for row, reason in own.skipped.items()}
        elif not self.device.is_cpu:
            self._decoded = decode(paths, transform, views, seed, self.device)
            self.skipped = self._decoded.skipped if self._decoded is not None else {}

    @property
    def checked(self) -> bool:
        """Whether every image has been read once, so that `skipped` is complete."""
        return not self.whole or self._decoded is not None

    def keep(self, rows: np.ndarray) -> None:
        """Keep only these images. The new row of an image is its place in `rows`."""
        self.paths, self._kept = [self.paths[row] for row in rows], self._kept[rows]

    def prefetch(self, rows: np.ndarray, view: int) -> None:
        """Start decoding the next images for a GPU. On a CPU, decoding would take cores from the computation."""
        if self.whole and self._decoded is None and not self.device.is_cpu:
            self._prefetch.begin([(int(row), view if self.views > 1 else 0) for row in rows])

    def features(self, rows: np.ndarray, view: int = 0) -> Tensor:
        """(B, d) float32 of the images `rows`."""
        if self.whole:
            pixels = self._pixel_values(rows, view if self.views > 1 else 0)
            return self._run(self.tower, pixels.contiguous(memory_format=torch.channels_last))
        values = self._cached[view % self.views][self._kept[rows]]
        if self.upper is None:
            return values
        if values.ndim == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        return self._run(self.upper, values)

    def _pixel_values(self, rows: np.ndarray, view: int) -> Tensor:
        """(B, 3, H, W) float32, on the device."""
        if self._decoded is not None:
            return self._decoded.pixel_values(self._kept[rows], view)
        if self.device.is_cpu:
            return torch.from_numpy(np.stack(self._load(rows, view)))
        return self.device.put(np.stack(self._prefetch.take([(int(row), view) for row in rows])))

    def _load(self, rows: np.ndarray, view: int) -> list[np.ndarray]:
        keys = [(int(row), view) for row in rows]
        images = []
        for _, loaded in prefetch(keys, self._load_row, ahead=len(rows)):
            if isinstance(loaded, MiniClipError):
                raise loaded
            images.append(loaded)
        return images

    def _load_row(self, key: tuple[int, int]) -> np.ndarray:
        row, view = key
        try:
            return View(self.transform, view, self.seed).load(self.paths[row])
        except MiniClipError as error:
            raise MiniClipError(f"{self.paths[row]}: {error}") from error


class Texts(TowerInput):
    """The input of the text tower."""

    def __init__(self, tower: TextTower, trained_blocks: int, tokens: Tokens, device: Device | None = None) -> None:
        super().__init__(tower, trained_blocks, example_text(tower), device)
        self.tokens = tokens
        learning = self.trained_blocks if self.learns else 0
        self._values: Frozen | None = None
        if not self.whole:
            self._values = Frozen(text_features(tower, tokens, learning, self.device).values, self.device)

    def features(self, rows: np.ndarray) -> Tensor:
        """(B, d) float32 of the texts `rows`."""
        if self._values is not None and self.upper is None:
            return self._values[rows]
        input_ids, attention_mask = map(self.device.put, self.tokens.padded(rows))
        if self._values is None:
            return self._run(self.tower, input_ids, attention_mask)
        assert self.upper is not None
        hidden = self._values[self.tokens.places(rows)].masked_fill(attention_mask[:, :, None] == 0, 0.0)
        return self._run(self.upper, hidden, input_ids, attention_mask)


def _depthwise_in_float32(tower: nn.Module) -> None:
    """Compute wide or strided depthwise convolutions in float32.

    On CPUs, their gradients in bfloat16 are slow: float32 is two to three times as fast in parts of 64 images.
    """
    for part in tower.modules():
        if (
            isinstance(part, nn.Conv2d)
            and part.groups == part.in_channels > 1
            and (part.stride != (1, 1) or max(part.kernel_size) > 3)
        ):
            cast(Any, part).forward = partial(_in_float32, part)


def _in_float32(convolution: nn.Conv2d, values: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return nn.Conv2d.forward(convolution, values.float()).to(values.dtype)


def _ids(parts: Iterable[nn.Module]) -> set[int]:
    return {id(parameter) for part in parts for parameter in part.parameters()}
