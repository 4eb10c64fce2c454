"""Backbones of the towers: which architectures there are, and how each is loaded or built from its config.

In: a Hugging Face folder, or its `config.json`. Out: a torch module whose every weight matches.
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from miniclip.errors import MiniClipError
from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig


def load_backbone(folder: Path, kind: str) -> nn.Module:
    """A pretrained backbone from a Hugging Face folder; `kind` is `vision` or `text`. Every weight must match."""
    settings = read_backbone_config(folder)
    refusal = f"cannot load the {kind} backbone in {folder}"
    if settings.get("model_type") == "efficientnet-lite":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        backbone = backbone_from_config(settings, kind)
        try:
            backbone.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise MiniClipError(f"{refusal}: {error}") from error
        return backbone
    from transformers.utils import logging

    quiet: Any = logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    cls, extra = _transformers_class(str(settings.get("model_type")), kind)
    try:  # without a dtype, weights stored in half precision would stay so
        backbone, report = cls.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True, **extra
        )
    except Exception as error:  # transformers raises many types for a damaged or unfit folder
        raise MiniClipError(f"{refusal}: {error}") from error
    if missing := sorted(name for name in report["missing_keys"] if not name.endswith("num_batches_tracked")):
        raise MiniClipError(f"{refusal}: it lacks {len(missing)} weights, {missing[0]} first; save it whole")
    return cast(nn.Module, backbone)


def backbone_from_config(settings: dict[str, Any], kind: str) -> nn.Module:
    """An untrained backbone from its `config.json`: what a run folder's weights are loaded into."""
    if settings.get("model_type") == "efficientnet-lite":
        try:
            return EfficientNetLite(EfficientNetLiteConfig(**settings))
        except TypeError as error:
            raise MiniClipError(
                f"the {kind} backbone's config.json is none of an EfficientNet-Lite: {error}"
            ) from error
    from transformers import AutoConfig

    model_type = str(settings.get("model_type"))
    cls, extra = _transformers_class(model_type, kind)
    values = {key: value for key, value in settings.items() if key not in ("model_type", "transformers_version")}
    try:
        return cast(nn.Module, cls._from_config(AutoConfig.for_model(model_type, **values), **extra))
    except Exception as error:  # transformers checks configs by exceptions of its own
        raise MiniClipError(f"cannot build the {kind} backbone from its config: {error}") from error


def backbone_settings(backbone: nn.Module) -> dict[str, Any]:
    """What `backbone_from_config` needs to build this backbone again."""
    if isinstance(backbone, EfficientNetLite):
        from dataclasses import asdict

        return asdict(backbone.config)
    return cast(dict[str, Any], cast(Any, backbone.config).to_dict())


def read_backbone_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a Hugging Face folder."""
    try:
        return cast(dict[str, Any], json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise MiniClipError(f"cannot read {folder / 'config.json'}: {error}") from error


def _transformers_class(model_type: str, kind: str) -> tuple[Any, dict[str, Any]]:
    """The transformers class of one tower, without pooling layers whose weights nobody trained."""
    import transformers as hf

    if model_type in ("clip", "clip_vision_model", "clip_text_model"):
        return (hf.CLIPVisionModel if kind == "vision" else hf.CLIPTextModel), {}
    known: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
        "vision": {
            "vit": (hf.ViTModel, {"add_pooling_layer": False}),
            "dinov2": (hf.Dinov2Model, {}),
            "resnet": (hf.ResNetModel, {}),
        },
        "text": {
            "bert": (hf.BertModel, {"add_pooling_layer": False}),
            "roberta": (hf.RobertaModel, {"add_pooling_layer": False}),
        },
    }
    if model_type not in known[kind]:
        names = ", ".join([*known[kind], "clip"])
        raise MiniClipError(f"--model.{kind}: no {kind} backbone of type {model_type!r}; known are {names}")
    return known[kind][model_type]
