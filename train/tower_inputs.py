"""The two sides of training: what goes into the part of each tower that learns.

In: a tower, how many of its blocks learn, and images or tokens. Out: `features (B, d)` of any rows, with gradients
where something learns. Three cases, from none to all: cached features; cached input of the first block that learns; the
whole tower, fed with images or tokens.
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
from miniclip.models.dual_encoder import TextTower, VisionTower

from .augment import View
from .blocks import UpperPart, blocks_of, frozen_parts
from .feature_cache import Features, bfloat16, image_features, text_features
from .tokens import Tokens


class TowerInput:
    """What both sides share. `learns`: whether any of the tower does."""

    def __init__(self, tower: VisionTower | TextTower, trained_blocks: int) -> None:
        blocks = blocks_of(tower)
        self.tower, self.trained_blocks = tower, min(trained_blocks, len(blocks))
        self.whole = trained_blocks > len(blocks)  # its embeddings too
        self.learns = trained_blocks > 0
        self.upper = None if self.whole or not self.learns else UpperPart(tower, len(blocks) - trained_blocks)

    def parameters_by_depth(self) -> list[tuple[nn.Parameter, int]]:
        """Every parameter that learns, and how many blocks are above it."""
        if not self.learns:
            return []
        blocks = blocks_of(self.tower)
        frozen = set() if self.whole else _ids(frozen_parts(self.tower, len(blocks) - self.trained_blocks))
        depth = dict.fromkeys(_ids(frozen_parts(self.tower, 0)), len(blocks))
        for number, block in enumerate(reversed(blocks)):
            depth |= dict.fromkeys(_ids([block]), number)
        # what is neither in a block nor below all of them is above: final norms, the last convolution
        return [(p, depth.get(id(p), 0)) for p in self.tower.parameters() if id(p) not in frozen]

    def train(self, mode: bool) -> None:
        """Dropout on or off. Batch norms keep their statistics: small batches of bfloat16 would spoil them."""
        self.tower.eval()
        if mode and self.learns:
            for block in [self.tower] if self.whole else blocks_of(self.tower)[-self.trained_blocks :]:
                for part in block.modules():
                    part.training = not isinstance(part, nn.modules.batchnorm._BatchNorm)

    def _run(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        with bfloat16():
            return cast(Tensor, module(*inputs)).float()


class Images(TowerInput):
    """Images, in `views` views if they are cached; view 0 is the image itself."""

    def __init__(
        self,
        tower: VisionTower,
        trained_blocks: int,
        transform: ImageTransform,
        paths: Sequence[Path],
        views: int,
        seed: int,
    ) -> None:
        super().__init__(tower, trained_blocks)
        self.paths, self.transform, self.views, self.seed = list(paths), transform, views, seed
        self._kept = np.arange(len(paths))
        cast(Any, tower).to(memory_format=torch.channels_last)
        if self.learns:
            _depthwise_in_float32(tower)
        self._cached: list[Features] = []
        if not self.whole:
            learning = self.trained_blocks if self.learns else 0
            self._cached = [
                image_features(tower, View(transform, number, seed), paths, learning) for number in range(views)
            ]
        self.skipped = {row: reason for own in self._cached for row, reason in own.skipped.items()}

    def keep(self, rows: np.ndarray) -> None:
        """Leave only these images; their new rows are their places in `rows`."""
        self.paths, self._kept = [self.paths[row] for row in rows], self._kept[rows]

    def features(self, rows: np.ndarray, view: int = 0) -> Tensor:
        """(B, d) float32 of the images `rows`."""
        if self.whole:
            pixels = torch.from_numpy(np.stack(self._load(rows, view)))
            return self._run(self.tower, pixels.contiguous(memory_format=torch.channels_last))
        values = torch.from_numpy(self._cached[view % self.views].values[self._kept[rows]].astype(np.float32))
        if self.upper is None:
            return values
        if values.ndim == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        return self._run(self.upper, values)

    def _load(self, rows: np.ndarray, view: int) -> list[np.ndarray]:
        load = View(self.transform, view if self.views > 1 else 0, self.seed).load
        images = []
        for place, loaded in prefetch([self.paths[row] for row in rows], load, ahead=len(rows)):
            if isinstance(loaded, MiniClipError):
                raise MiniClipError(f"{self.paths[rows[place]]}: {loaded}")
            images.append(loaded)
        return images


class Texts(TowerInput):
    """Captions."""

    def __init__(self, tower: TextTower, trained_blocks: int, tokens: Tokens) -> None:
        super().__init__(tower, trained_blocks)
        self.tokens = tokens
        learning = self.trained_blocks if self.learns else 0
        self._values = None if self.whole else text_features(tower, tokens, learning).values

    def features(self, rows: np.ndarray) -> Tensor:
        """(B, d) float32 of the texts `rows`."""
        if self._values is None:
            return self._run(self.tower, *self.tokens.padded(rows))
        if self.upper is None:
            return torch.from_numpy(self._values[rows].astype(np.float32))
        input_ids, attention_mask = self.tokens.padded(rows)
        hidden = torch.zeros(*input_ids.shape, self._values.shape[1])
        for place, row in enumerate(rows):
            start, end = self.tokens.offsets[row], self.tokens.offsets[row + 1]
            hidden[place, : end - start] = torch.from_numpy(self._values[start:end].astype(np.float32))
        return self._run(self.upper, hidden, input_ids, attention_mask)


def _depthwise_in_float32(tower: nn.Module) -> None:
    """Wide or strided depthwise convolutions have slow gradients in bfloat16 on CPUs: these take float32, which is two
    to three times as fast in parts of 64 images."""
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
