"""The dual encoder in PyTorch: two backbones, a projection head each, and a learned temperature.

In: `pixel_values (B, 3, H, W)` and `input_ids, attention_mask (B, L)`. Out: `image_embeds, text_embeds (B, D)`, unit
length. After A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021),
section 2.3 and figure 3.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from miniclip.errors import MiniClipError
from miniclip.models.config import ModelConfig
from miniclip.models.efficientnet import EfficientNetLite

LOGIT_SCALE_START = math.log(1 / 0.07)
LOGIT_SCALE_MAX = math.log(100)


class ProjectionHead(nn.Module):
    """Features of a backbone -> the shared space.

    Linear(d, p) -> GELU -> Linear(p, p) -> Dropout -> + residual -> LayerNorm. Features are standardised first by the
    training set's mean and standard deviation (the identity until `fit_features` is called), since backbones differ
    in scale by orders of magnitude.
    """

    def __init__(self, feature_dim: int, projection_dim: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_std", torch.ones(feature_dim))
        self.projection = nn.Linear(feature_dim, projection_dim)
        self.fc = nn.Linear(projection_dim, projection_dim)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(projection_dim)

    def fit_features(self, features: Tensor) -> None:
        """Take mean and standard deviation from the training features (N, d).

        A dimension that hardly varies is not blown up to unit variance: it would carry nothing but rounding errors, and
        those of fp16 and int8 a thousandfold.
        """
        std = features.std(dim=0)
        cast(Tensor, self.feature_mean).copy_(features.mean(dim=0))
        cast(Tensor, self.feature_std).copy_(std.clamp_min(0.1 * float(std.median()) + 1e-6))

    def standardise(self, features: Tensor) -> Tensor:
        """(B, d) -> (B, d) with zero mean and unit variance over the training set."""
        return (features - cast(Tensor, self.feature_mean)) / cast(Tensor, self.feature_std)

    def project(self, standardised: Tensor) -> Tensor:
        """(B, d) standardised -> (B, p), unit length."""
        projected = self.projection(standardised)
        x = projected + self.dropout(self.fc(functional.gelu(projected)))
        return functional.normalize(self.layer_norm(x), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(self.standardise(features))


class LinearHead(nn.Module):
    """One matrix. `project(standardise(x))` as in `ProjectionHead`, without standardising.

    Without a bias it is CLIP's own head (`linear`); with one, that of old checkpoints which `miniclip import` opens
    (`affine`).
    """

    def __init__(self, feature_dim: int, projection_dim: int, bias: bool = False) -> None:
        super().__init__()
        self.projection = nn.Linear(feature_dim, projection_dim, bias=bias)

    def fit_features(self, features: Tensor) -> None:
        """Nothing to fit."""

    def standardise(self, features: Tensor) -> Tensor:
        return features

    def project(self, features: Tensor) -> Tensor:
        """(B, d) -> (B, p), unit length."""
        return functional.normalize(self.projection(features), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(features)


class VisionTower(nn.Module):
    """A vision backbone and what is taken from it: `pixel_values` -> `image_features (B, d)`."""

    def __init__(self, backbone: nn.Module, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        model_type = cast(Any, backbone.config).model_type
        auto = {"efficientnet-lite": "pooled", "resnet": "pooled", "clip_vision_model": "pooled"}
        self.pooling = auto.get(str(model_type), "cls+mean") if pooling == "auto" else pooling
        if model_type in ("efficientnet-lite", "resnet") and self.pooling != "pooled":
            raise MiniClipError(f"--model.vision_pooling {pooling}: {model_type} has no tokens to pool; use auto")

    def forward(self, pixel_values: Tensor) -> Tensor:
        if isinstance(self.backbone, EfficientNetLite):
            return cast(Tensor, self.backbone(pixel_values))
        output = self.backbone(pixel_values=pixel_values, **self._stretch(pixel_values))
        if self.pooling == "pooled":  # ResNet's global average, CLIP's normalised class token
            return cast(Tensor, output.pooler_output.flatten(1))
        tokens = output.last_hidden_state  # (B, T, d), the class token first
        if self.pooling == "cls":
            return cast(Tensor, tokens[:, 0])
        patches = tokens[:, 1:].mean(dim=1)
        return patches if self.pooling == "mean" else torch.cat([tokens[:, 0], patches], dim=-1)

    def _stretch(self, pixel_values: Tensor) -> dict[str, bool]:
        """ViT and CLIP refuse any size but their own unless asked to interpolate positions; DINOv2 always does."""
        config = cast(Any, self.backbone.config)
        if config.model_type not in ("vit", "clip_vision_model"):
            return {}
        native = config.image_size if isinstance(config.image_size, int) else tuple(config.image_size)
        native = (native, native) if isinstance(native, int) else native
        return {"interpolate_pos_encoding": tuple(pixel_values.shape[-2:]) != native}

    @property
    def feature_dim(self) -> int:
        config = cast(Any, self.backbone.config)
        dim = config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size
        return int(dim) * (2 if self.pooling == "cls+mean" else 1)


class TextTower(nn.Module):
    """A text backbone and what is taken from it: `input_ids, attention_mask` -> `text_features (B, d)`."""

    def __init__(self, backbone: nn.Module, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        is_clip = cast(Any, backbone.config).model_type == "clip_text_model"
        self.pooling = ("eos" if is_clip else "mean") if pooling == "auto" else pooling
        if self.pooling == "eos" and not is_clip:
            raise MiniClipError("--model.text_pooling eos: only CLIP has an end-of-text feature; use auto, mean or cls")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        if self.pooling == "eos":  # CLIP's end-of-text token, found by the backbone itself
            return cast(Tensor, output.pooler_output)
        tokens = output.last_hidden_state  # (B, L, d)
        if self.pooling == "cls":
            return cast(Tensor, tokens[:, 0])
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)  # (B, L, 1)
        return cast(Tensor, (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1))

    @property
    def feature_dim(self) -> int:
        return int(cast(Any, self.backbone.config).hidden_size)

    @property
    def max_positions(self) -> int:
        """The longest text the backbone's position table can hold; RoBERTa's begins after its padding index."""
        config = cast(Any, self.backbone.config)
        offset = int(config.pad_token_id) + 1 if config.model_type == "roberta" else 0
        return int(config.max_position_embeddings) - offset


def make_head(feature_dim: int, config: ModelConfig) -> ProjectionHead | LinearHead:
    """The head that `--model.head` names."""
    if config.head in ("linear", "affine"):
        return LinearHead(feature_dim, config.projection_dim, bias=config.head == "affine")
    return ProjectionHead(feature_dim, config.projection_dim, config.dropout)


class DualEncoder(nn.Module):
    """Two towers, two heads, one temperature: the whole idea in `forward`."""

    def __init__(self, vision: VisionTower, text: TextTower, config: ModelConfig) -> None:
        super().__init__()
        self.vision, self.text = vision, text
        self.vision_head = make_head(vision.feature_dim, config)
        self.text_head = make_head(text.feature_dim, config)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE_START))

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> `image_embeds` (B, D), unit length."""
        return cast(Tensor, self.vision_head(self.vision(pixel_values)))

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) twice -> `text_embeds` (B, D), unit length."""
        return cast(Tensor, self.text_head(self.text(input_ids, attention_mask)))

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """-> logits (N_texts, N_images): scaled cosine similarities."""
        image_embeds = self.encode_image(pixel_values)
        text_embeds = self.encode_text(input_ids, attention_mask)
        return self.logit_scale.clamp(max=LOGIT_SCALE_MAX).exp() * text_embeds @ image_embeds.T  # (N_texts, N_images)


def build_model(config: ModelConfig, vision: nn.Module, text: nn.Module) -> DualEncoder:
    """Towers and heads around two backbones (from `load_backbone` or `backbone_from_config`)."""
    return DualEncoder(VisionTower(vision, config.vision_pooling), TextTower(text, config.text_pooling), config)
