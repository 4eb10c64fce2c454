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

from miniclip.errors import MiniClipError, one_line
from miniclip.models.architectures import (
    config_of,
    facts_of,
    image_inputs,
    leading_tokens,
    max_positions,
    native_size,
)
from miniclip.models.config import ModelConfig
from miniclip.models.pooling import POOLED, TEXT_POOLINGS, VISION_POOLINGS

LOGIT_SCALE_START = math.log(1 / 0.07)
LOGIT_SCALE_MAX = math.log(100)


class ProjectionHead(nn.Module):
    """Features of a backbone -> the shared space.

    Linear(d, p) -> GELU -> Linear(p, p) -> Dropout -> + residual -> LayerNorm. First, features are standardised by the
    mean and standard deviation of the training set, because backbones differ in scale by orders of magnitude. Before
    `fit_features`, this is the identity.
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

        A dimension that hardly varies is not scaled to unit variance, because that would amplify the rounding errors of
        fp16 and int8 a thousandfold.
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

    Without a bias, it is the head of CLIP (`linear`); with a bias, the head of checkpoints that `miniclip import` opens
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
    """A vision backbone with its pooling: `pixel_values` -> `image_features (B, d)`.

    Errors: `MiniClipError` for a pooling that the backbone does not have, or a backbone that cannot be run.
    """

    def __init__(self, backbone: nn.Module, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone.eval()  # with batch norms in training mode, the image below would change them
        model_type = config_of(backbone).model_type
        height, width = native_size(backbone)
        blank = torch.zeros(1, 3, height, width, device=next(backbone.parameters()).device)
        try:
            with torch.no_grad():
                output = self._output(blank)
        except Exception as error:  # an unknown architecture may raise any type
            raise MiniClipError(f"--model.vision: a {model_type} cannot be run: {one_line(error)}") from error
        is_map = isinstance(output, Tensor) or output.last_hidden_state.ndim == 4
        self.leading_tokens = leading_tokens(backbone)
        known = POOLED if is_map else facts_of(backbone).pooling
        rule = "cls+mean" if self.leading_tokens else "mean"
        self.pooling = (rule if known == "auto" else known) if pooling == "auto" else pooling
        if is_map and self.pooling != POOLED:
            raise MiniClipError(f"--model.vision_pooling {pooling}: {model_type} has no tokens to pool; use auto")
        if "cls" in self.pooling and not self.leading_tokens:
            raise MiniClipError(f"--model.vision_pooling {pooling}: {model_type} has no class token; use auto or mean")
        self.feature_dim = int(self._pooled(output).shape[-1])

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self._pooled(self._output(pixel_values))

    def _output(self, pixel_values: Tensor) -> Any:
        return self.backbone(**image_inputs(self.backbone, pixel_values))

    def _pooled(self, output: Any) -> Tensor:
        if isinstance(output, Tensor):  # EfficientNetLite pools itself
            return output
        return VISION_POOLINGS[self.pooling](output, self.leading_tokens)


class TextTower(nn.Module):
    """A text backbone with its pooling: `input_ids, attention_mask` -> `text_features (B, d)`.

    Errors: `MiniClipError` for a pooling that the backbone does not have, or a backbone that cannot be run.
    """

    def __init__(self, backbone: nn.Module, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone.eval()
        facts, model_type = facts_of(backbone), config_of(backbone).model_type
        known = {"auto": "mean", POOLED: "eos"}.get(facts.pooling, facts.pooling)
        self.pooling = known if pooling == "auto" else pooling
        if self.pooling == "eos" and known != "eos":
            raise MiniClipError(
                f"--model.text_pooling eos: a {model_type} has no end-of-text feature; use auto, mean or cls"
            )
        self.max_positions = max_positions(backbone)
        self.exact_length = self.max_positions if facts.sees_padding else None
        ids = torch.ones(1, min(4, self.max_positions), dtype=torch.int64, device=next(backbone.parameters()).device)
        try:
            with torch.no_grad():
                self.feature_dim = int(self(ids, torch.ones_like(ids)).shape[-1])
        except Exception as error:  # an unknown architecture may raise any type
            raise MiniClipError(f"--model.text: a {model_type} cannot be run: {one_line(error)}") from error

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.exact_length is not None:
            input_ids = self._filled(input_ids, attention_mask, self.exact_length)
            attention_mask = torch.ones_like(input_ids)  # the backbone was trained without a mask
            output = self.backbone(input_ids=input_ids)
        else:
            output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        return TEXT_POOLINGS[self.pooling](output, attention_mask)

    def _filled(self, input_ids: Tensor, attention_mask: Tensor, length: int) -> Tensor:
        """(B, L) -> (B, length), filled with the padding id of the backbone's training."""
        pad = int(config_of(self.backbone).pad_token_id)
        input_ids = input_ids.masked_fill(attention_mask == 0, pad)
        return functional.pad(input_ids, (0, length - input_ids.shape[1]), value=pad)


def make_head(feature_dim: int, config: ModelConfig) -> ProjectionHead | LinearHead:
    """The head of this kind, as in `--model.head`."""
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
        self.sigmoid: tuple[float, float] | None = None  # scale and bias of a pretrained SigLIP's probabilities

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
