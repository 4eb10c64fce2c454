"""One tiny backbone of every architecture, with random weights, and inputs for it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional

from export.graph import Feeds, image_feeds
from miniclip.models.config import Config, ModelConfig
from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig

VOCABULARY = 2200  # more rows than a table needs to be quantised

POSITIONS = 24

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

TEXT = {"vocab_size": VOCABULARY, **TINY}


@dataclass(frozen=True)
class VisionRow:
    """`size_px` is what the run uses, `other_px` a second size, neither always the backbone's own."""

    make: Callable[[], nn.Module]
    size_px: int
    other_px: int
    attention_layers: int


@dataclass(frozen=True)
class TextRow:
    """Special ids as the row's tokenizer would give them."""

    make: Callable[[], nn.Module]
    begin: int
    end: int
    pad: int


def clip_config(text_end_id: int) -> "hf.CLIPConfig":
    text = {"max_position_embeddings": POSITIONS, "eos_token_id": text_end_id, "pad_token_id": 1, **TEXT}
    return hf.CLIPConfig(text_config=text, vision_config={"image_size": 64, "patch_size": 16, **TINY}, projection_dim=8)


VISION = {
    "efficientnet-lite": VisionRow(
        lambda: EfficientNetLite(EfficientNetLiteConfig(width=0.25, depth=0.5, hidden_size=64)), 64, 80, 0
    ),
    "vit": VisionRow(
        lambda: hf.ViTModel(hf.ViTConfig(image_size=64, patch_size=16, **TINY), add_pooling_layer=False), 64, 96, 2
    ),
    "dinov2": VisionRow(  # neither size is its own, 112
        lambda: hf.Dinov2Model(
            hf.Dinov2Config(
                image_size=112, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2
            )
        ), 56, 98, 2,
    ),
    "resnet": VisionRow(
        lambda: hf.ResNetModel(
            hf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[2, 1], layer_type="bottleneck")
        ), 64, 96, 0,
    ),
    "clip": VisionRow(lambda: hf.CLIPVisionModel(clip_config(3).vision_config), 64, 80, 2),
}  # fmt: skip

TEXTS = {
    "bert": TextRow(
        lambda: hf.BertModel(hf.BertConfig(max_position_embeddings=POSITIONS, **TEXT), add_pooling_layer=False), 2, 3, 0
    ),
    "roberta": TextRow(  # its positions begin behind the padding id
        lambda: hf.RobertaModel(
            hf.RobertaConfig(max_position_embeddings=POSITIONS + 2, pad_token_id=1, **TEXT), add_pooling_layer=False
        ), 0, 2, 1,
    ),
    "clip": TextRow(lambda: hf.CLIPModel(clip_config(3)), 4, 3, 1),
    # OpenAI's files: the config says 2, the tokenizer ends and pads with the last id, and the largest id is looked for
    "clip-openai": TextRow(lambda: hf.CLIPModel(clip_config(2)), 4, VOCABULARY - 1, VOCABULARY - 1),
}  # fmt: skip


def images(count: int, size_px: int, seed: int) -> torch.Tensor:
    """Coloured clouds (N, 3, size, size): images differ by more than noise."""
    generator = torch.Generator().manual_seed(seed)
    clouds = torch.randn(count, 3, 4, 4, generator=generator)
    noise = 0.2 * torch.randn(count, 3, size_px, size_px, generator=generator)
    return functional.interpolate(clouds, size=(size_px, size_px), mode="bilinear") + noise


def sentences(row: TextRow, lengths: list[int], seed: int) -> list[list[int]]:
    """Token ids as the row's tokenizer would give them, special ones included in the lengths."""
    words = np.random.default_rng(seed)
    return [[row.begin, *words.integers(5, VOCABULARY - 1, length - 2).tolist(), row.end] for length in lengths]


def padded(row: TextRow, texts: list[list[int]], length: int = 0) -> dict[str, np.ndarray]:
    """`input_ids, attention_mask` (B, L), L the longest text or `length` if that is more."""
    length = max(length, *(len(text) for text in texts))
    ids = [text + [row.pad] * (length - len(text)) for text in texts]
    masks = [[1] * len(text) + [0] * (length - len(text)) for text in texts]
    return {"input_ids": np.asarray(ids, dtype=np.int64), "attention_mask": np.asarray(masks, dtype=np.int64)}


def calibration_images(row: VisionRow) -> Feeds:
    return image_feeds(images(32, row.size_px, seed=2).numpy())


def calibration_texts(row: TextRow) -> Feeds:
    return [padded(row, sentences(row, [length, length + 3, length + 6] * 6, seed=length)) for length in range(3, 11)]


def randomise(module: nn.Module) -> nn.Module:
    """Weights that keep the scale of what passes through, biases and norms that are not the identity.

    With random weights, batch norm makes any rounding grow from layer to layer (G. Yang et al., "A Mean Field Theory
    of Batch Normalization", ICLR 2019), as it does not in a trained network: what enters a ReLU6 is kept mostly inside
    its linear part, so that 8 bits can be judged.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 0
            offset = 1.0 if fan_in == 0 and bool((parameter == 1).all()) else 0.0
            parameter.copy_(offset + torch.randn_like(parameter) * (1.2 / fan_in**0.5 if fan_in else 0.1))
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        nn.init.constant_(norm.weight, 0.8)
        nn.init.constant_(norm.bias, 2.0)
    if norms:
        with torch.no_grad():
            module.train()(images(32, 64, seed=9))
    return module.eval()


def save_backbone(module: nn.Module, folder: Path) -> Path:
    """As `save_pretrained` leaves it."""
    if isinstance(module, EfficientNetLite):
        from dataclasses import asdict

        from safetensors.torch import save_file

        from miniclip.files import write_json

        folder.mkdir()
        save_file(module.state_dict(), folder / "model.safetensors")
        write_json(folder / "config.json", asdict(module.config))
    else:
        module.save_pretrained(folder)
    return folder


def config_of(vision: Path, text: Path, size_px: int) -> Config:
    return Config(model=ModelConfig(vision=str(vision), text=str(text), projection_dim=32, image_size_px=size_px))


SHIPPED = ("efficientnet-lite", "bert")


def in_tiers(names: Iterable[str]) -> list[Any]:
    """Parameters of a test: what ships is tested by `make test`, all other architectures by `make test-e2e`."""
    others = [pytest.param(name, marks=pytest.mark.e2e) for name in names if name.split()[-1] not in SHIPPED]
    return [name for name in names if name.split()[-1] in SHIPPED] + others
