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

IMAGES = {"image_size": 64, "patch_size": 16}

TEXT = {"vocab_size": VOCABULARY, **TINY}


@dataclass(frozen=True)
class VisionRow:
    """A vision backbone. The run uses images of `size_px`, and `other_px` is a second size.

    `attention_layers`: the number of native ones in the graph. `native`: all attention is native. It is not if it has a
    bias for positions (BEiT, Swin) or pools the patches (SigLIP).
    """

    make: Callable[[], nn.Module]
    size_px: int
    other_px: int
    attention_layers: int
    native: bool = True
    masked: bool = False
    int8_cosine: float = 0.98


@dataclass(frozen=True)
class TextRow:
    """A text backbone, with the special ids of its tokenizer.

    `attention_layers`: the number of native ones in the graph; DeBERTa's positions do not fit the operator. `merged`:
    the export merged query, key and value into one product.
    """

    make: Callable[[], nn.Module]
    begin: int
    end: int
    pad: int
    attention_layers: int = 2
    merged: bool = True
    native: bool = True
    masked: bool = True
    int8_cosine: float = 0.98


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
    "dinov2": VisionRow(  # its own size is 112
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
    "siglip": VisionRow(lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**IMAGES, **TINY)), 64, 80, 2, native=False),
    "siglip2": VisionRow(
        lambda: hf.Siglip2VisionModel(hf.Siglip2VisionConfig(num_patches=16, patch_size=16, **TINY)), 64, 80, 2,
        native=False,
    ),
    "dinov2 with registers": VisionRow(
        lambda: hf.Dinov2WithRegistersModel(
            hf.Dinov2WithRegistersConfig(
                image_size=112, patch_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2
            )
        ), 56, 98, 2,
    ),
    "dinov3": VisionRow(
        lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(num_register_tokens=4, **IMAGES, **TINY)), 64, 80, 2
    ),
    "deit": VisionRow(lambda: hf.DeiTModel(hf.DeiTConfig(**IMAGES, **TINY), add_pooling_layer=False), 64, 80, 2),
    "beit": VisionRow(
        lambda: hf.BeitModel(hf.BeitConfig(use_relative_position_bias=True, **IMAGES, **TINY), add_pooling_layer=False),
        64, 80, 0, native=False,
    ),
    "convnext": VisionRow(
        lambda: hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[16, 32], depths=[2, 1], num_stages=2)), 64, 96, 0
    ),
    "convnextv2": VisionRow(
        lambda: hf.ConvNextV2Model(hf.ConvNextV2Config(hidden_sizes=[16, 32], depths=[2, 1], num_stages=2)), 64, 96, 0
    ),
    "swin": VisionRow(
        lambda: hf.SwinModel(
            hf.SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4),
            add_pooling_layer=False,
        ), 64, 96, 0, native=False,
    ),
    "mobilenet_v2": VisionRow(
        lambda: hf.MobileNetV2Model(hf.MobileNetV2Config(image_size=64, depth_multiplier=0.35)), 64, 96, 0,
        int8_cosine=0.95,  # seventeen blocks of random weights
    ),
    "mobilevit": VisionRow(
        lambda: hf.MobileViTModel(
            hf.MobileViTConfig(
                image_size=64, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 64]
            )
        ), 64, 96, 0, native=False,
    ),
    "efficientnet": VisionRow(
        lambda: hf.EfficientNetModel(
            hf.EfficientNetConfig(image_size=64, width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320)
        ), 64, 96, 0, int8_cosine=0.95,
    ),
    "regnet": VisionRow(
        lambda: hf.RegNetModel(
            hf.RegNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8)
        ), 64, 96, 0,
    ),
}  # fmt: skip

TEXTS = {
    "bert": TextRow(
        lambda: hf.BertModel(hf.BertConfig(max_position_embeddings=POSITIONS, **TEXT), add_pooling_layer=False), 2, 3, 0
    ),
    "roberta": TextRow(  # its positions begin after the padding id
        lambda: hf.RobertaModel(
            hf.RobertaConfig(max_position_embeddings=POSITIONS + 2, pad_token_id=1, **TEXT), add_pooling_layer=False
        ), 0, 2, 1,
    ),
    "clip": TextRow(lambda: hf.CLIPModel(clip_config(3)), 4, 3, 1),
    # OpenAI's files: the config has 2, but the tokenizer ends and pads with the last id, and CLIP pools at the largest
    "clip-openai": TextRow(lambda: hf.CLIPModel(clip_config(2)), 4, VOCABULARY - 1, VOCABULARY - 1),
    "distilbert": TextRow(
        lambda: hf.DistilBertModel(
            hf.DistilBertConfig(
                vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, dim=32, n_layers=2, n_heads=2, hidden_dim=64
            )
        ), 2, 3, 0,
    ),
    "mpnet": TextRow(  # positions as RoBERTa's, and a bias for them
        lambda: hf.MPNetModel(
            hf.MPNetConfig(max_position_embeddings=POSITIONS + 2, pad_token_id=1, **TEXT), add_pooling_layer=False
        ), 0, 2, 1, attention_layers=0, merged=False, native=False,
    ),
    "xlm-roberta": TextRow(
        lambda: hf.XLMRobertaModel(
            hf.XLMRobertaConfig(max_position_embeddings=POSITIONS + 2, pad_token_id=1, **TEXT), add_pooling_layer=False
        ), 0, 2, 1,
    ),
    "deberta-v3": TextRow(
        lambda: hf.DebertaV2Model(
            hf.DebertaV2Config(
                max_position_embeddings=POSITIONS, relative_attention=True, pos_att_type=["p2c", "c2p"],
                position_biased_input=False, position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm",
                type_vocab_size=0, **TEXT,
            )
        ), 2, 3, 0, attention_layers=0, merged=False, native=False,
    ),
    "electra": TextRow(
        lambda: hf.ElectraModel(hf.ElectraConfig(max_position_embeddings=POSITIONS, embedding_size=16, **TEXT)), 2, 3, 0
    ),
    "albert": TextRow(
        lambda: hf.AlbertModel(
            hf.AlbertConfig(max_position_embeddings=POSITIONS, embedding_size=16, **TEXT), add_pooling_layer=False
        ), 2, 3, 0,
    ),
    "modernbert": TextRow(  # query, key and value already are one product
        lambda: hf.ModernBertModel(
            hf.ModernBertConfig(
                max_position_embeddings=POSITIONS, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2,
                sep_token_id=3, global_attn_every_n_layers=2, local_attention=8, **TEXT,
            )
        ), 2, 3, 0, merged=False,
    ),
    "siglip": TextRow(
        lambda: hf.SiglipTextModel(
            hf.SiglipTextConfig(max_position_embeddings=POSITIONS, projection_size=32, pad_token_id=1, **TEXT)
        ), 2, 3, 1, masked=False,
    ),
}  # fmt: skip


def images(count: int, size_px: int, seed: int) -> torch.Tensor:
    """Coloured clouds (N, 3, size, size): images differ by more than noise."""
    generator = torch.Generator().manual_seed(seed)
    clouds = torch.randn(count, 3, 4, 4, generator=generator)
    noise = 0.2 * torch.randn(count, 3, size_px, size_px, generator=generator)
    return functional.interpolate(clouds, size=(size_px, size_px), mode="bilinear") + noise


def sentences(row: TextRow, lengths: list[int], seed: int) -> list[list[int]]:
    """Token ids as from the tokenizer of the row; lengths include special tokens."""
    words = np.random.default_rng(seed)
    return [[row.begin, *words.integers(5, VOCABULARY - 1, length - 2).tolist(), row.end] for length in lengths]


def padded(row: TextRow, texts: list[list[int]], length: int = 0) -> dict[str, np.ndarray]:
    """`input_ids, attention_mask` (B, L), where L is the longest text, or `length` if that is larger."""
    length = max(length, *(len(text) for text in texts))
    ids = [text + [row.pad] * (length - len(text)) for text in texts]
    masks = [[1] * len(text) + [0] * (length - len(text)) for text in texts]
    return {"input_ids": np.asarray(ids, dtype=np.int64), "attention_mask": np.asarray(masks, dtype=np.int64)}


def calibration_images(row: VisionRow) -> Feeds:
    return image_feeds(images(32, row.size_px, seed=2).numpy())


def calibration_texts(row: TextRow) -> Feeds:
    return [padded(row, sentences(row, [length, length + 3, length + 6] * 6, seed=length)) for length in range(3, 11)]


def randomise(module: nn.Module) -> nn.Module:
    """Set random weights that keep the scale of activations, and biases and norms other than the identity.

    With random weights, batch norm amplifies rounding from layer to layer (G. Yang et al., "A Mean Field Theory of
    Batch Normalization", ICLR 2019); in a trained network it does not. So most inputs of a ReLU6 stay in its linear
    range, and 8 bits can be tested.
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
    """Write a backbone like `save_pretrained`."""
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
    """Parameters of a test: `make test` runs the architectures that ship, `make test-e2e` all others."""
    others = [pytest.param(name, marks=pytest.mark.e2e) for name in names if name.split()[-1] not in SHIPPED]
    return [name for name in names if name.split()[-1] in SHIPPED] + others
