"""EfficientNet-Lite: the default vision backbone. Plain MBConv blocks, ReLU6, no squeeze-and-excite.

In: `pixel_values (B, 3, H, W)`. Out: `image_features (B, C)`, C = 1280.
Follows M. Tan and Q. Le, "EfficientNet" (ICML 2019), table 1, in the Lite variant of TensorFlow's model garden: stem
and head keep their width, ReLU6 instead of Swish, "SAME" padding, batch norm with epsilon 1e-3.
"""

import math
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from miniclip.errors import MiniClipError

# (kernel, stride, expansion, output channels, repeats) of the seven stages at width and depth 1
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
WIDTH_AND_DEPTH = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """The variant; `width` scales the channels, for a tiny test model."""

    variant: str = "lite0"
    width: float | None = None
    depth: float | None = None
    hidden_size: int = 1280
    model_type: str = "efficientnet-lite"

    def width_and_depth(self) -> tuple[float, float]:
        if self.variant not in WIDTH_AND_DEPTH:
            raise MiniClipError(f"unknown EfficientNet {self.variant!r}; known are {', '.join(WIDTH_AND_DEPTH)}")
        width, depth = WIDTH_AND_DEPTH[self.variant]
        return self.width or width, self.depth or depth


class SamePad(nn.Module):
    """TensorFlow's "SAME" padding before a strided convolution: an odd total has one more pixel right and below."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self.kernel - (int(size) % self.stride or self.stride) for size in x.shape[-2:])
        return nn.functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def conv(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution with "SAME" padding, then batch norm."""
    if stride == 1:
        layers: list[nn.Module] = []
        padding = kernel // 2
    else:
        layers, padding = [SamePad(kernel, stride)], 0
    return [
        *layers,
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01),
    ]


class MBConv(nn.Module):
    """Inverted residual: widen, depthwise, narrow; the input is added if the shapes are equal."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        expand = [*conv(in_channels, wide), nn.ReLU6()] if expansion != 1 else []
        self.layers = nn.Sequential(
            *expand, *conv(wide, wide, kernel, stride, groups=wide), nn.ReLU6(), *conv(wide, out_channels)
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.layers(x))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Stem, blocks and head; global average pooling at the end."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.config = config
        width, depth = config.width_and_depth()
        stem_channels = 32 if width >= 1 else _round_channels(32 * width)
        channels = stem_channels
        self.stem = nn.Sequential(*conv(3, stem_channels, 3, stride=2), nn.ReLU6())
        blocks: list[nn.Module] = []
        for stage, (kernel, stride, expansion, out_channels, repeats) in enumerate(STAGES):
            out_channels = _round_channels(out_channels * width)
            scaled = repeats if stage in (0, len(STAGES) - 1) else math.ceil(repeats * depth)
            for repeat in range(scaled):
                blocks.append(MBConv(channels, out_channels, kernel, stride if repeat == 0 else 1, expansion))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*conv(channels, config.hidden_size), nn.ReLU6())

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> `image_features` (B, C)."""
        x = cast(Tensor, self.head(self.blocks(self.stem(pixel_values))))
        return x.mean(dim=(2, 3))


def _round_channels(channels: float, divisor: int = 8) -> int:
    """The multiple of 8 nearest to `channels`, never less than 90 % of it (the TensorFlow rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def from_reference_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the names of the published PyTorch port -> with our names, without its classifier `_fc.*`.

    The port numbers the layers of a block by role; our names follow from the position in the `Sequential`.
    """
    renamed: dict[str, Tensor] = {}
    strided = _strided(state)
    has_expansion = {name.split(".")[1] for name in state if "_expand_conv" in name}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "_fc":
            continue
        if parts[0] != "_blocks":
            place = {"_conv_stem": "stem.1", "_bn0": "stem.2", "_conv_head": "head.0", "_bn1": "head.1"}[parts[0]]
            renamed[f"{place}.{parts[1]}"] = value
            continue
        block, role, leaf = parts[1], parts[2], parts[3]
        order = ["_expand_conv", "_bn0", "relu"] if block in has_expansion else []
        order += (["pad"] if int(block) in strided else []) + [
            "_depthwise_conv",
            "_bn1",
            "relu",
            "_project_conv",
            "_bn2",
        ]
        renamed[f"blocks.{block}.layers.{order.index(role)}.{leaf}"] = value
    return renamed


def _strided(state: dict[str, Tensor]) -> set[int]:
    """Numbers of the blocks that halve the resolution: the first of stages 2, 3, 4 and 6."""
    outputs = [int(state[f"_blocks.{i}._project_conv.weight"].shape[0]) for i in range(_count_blocks(state))]
    firsts = [i for i in range(1, len(outputs)) if outputs[i] != outputs[i - 1]]
    return {firsts[stage] for stage in (0, 1, 2, 4)}


def _count_blocks(state: dict[str, Tensor]) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith("_blocks."))
