"""Load the backbone of a tower from a folder, or build it from its config.

In: a Hugging Face folder, or its `config.json`. Out: a torch module. A folder must hold every weight of it.
"""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from miniclip.errors import MiniClipError, one_line
from miniclip.models.architectures import as_trained
from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig

INPUT_NAMES = {"vision": "pixel_values", "text": "input_ids"}


def load_backbone(folder: Path, kind: str) -> nn.Module:
    """A pretrained backbone from a Hugging Face folder; `kind` is `vision` or `text`. Every weight must match.

    If the folder holds a whole model, such as CLIP, the backbone is its tower of that kind.

    Errors: `MiniClipError` when the folder is damaged, lacks weights, or holds a model of another kind.
    """
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
    if is_whole_model(settings):
        return load_whole_model(folder).tower(kind)
    cls = _model_class(_config_from(settings, kind), kind)
    backbone, missing = load_transformers(cls, folder, refusal, **_without_pooler(cls))
    check_complete(missing, refusal)
    return as_trained(backbone, folder)


@dataclass(frozen=True)
class WholeModel:
    """A transformers model with two towers, and the names of the weights that its files lack."""

    model: Any
    folder: Path
    missing: list[str]

    def tower(self, kind: str) -> nn.Module:
        """Its vision or text tower, without a pooling layer that the tower's embedding does not use."""
        name = f"{kind}_model"
        refusal = f"cannot load the {kind} backbone in {self.folder}"
        tower = getattr(self.model, name, None)
        if tower is None:
            raise MiniClipError(f"{refusal}: a {self.model.config.model_type} has no {name}")
        if _without_pooler(type(tower)):
            tower.pooler = None
        check_complete([key for key in self.missing if key.startswith(f"{name}.")], refusal)
        return as_trained(tower, self.folder)


def is_whole_model(settings: dict[str, Any]) -> bool:
    """Whether a `config.json` describes a model with a vision and a text tower."""
    both = all(isinstance(settings.get(f"{kind}_config"), dict) for kind in ("vision", "text"))
    return both or (settings.get("model_type") == "clip" and "text_config_dict" in settings)


def load_whole_model(folder: Path) -> WholeModel:
    """Open a model with two towers; `MiniClipError` when transformers cannot."""
    from transformers import AutoModel

    model, missing = load_transformers(AutoModel, folder, f"cannot load the model in {folder}")
    return WholeModel(model, folder, missing)


def load_transformers(cls: Any, folder: Path, refusal: str, **extra: Any) -> tuple[Any, list[str]]:
    """A transformers model in float32 and evaluation mode, and the names of the weights that its files lack."""
    from transformers.utils import logging

    quiet: Any = logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    try:  # without a dtype, weights in half precision would stay in half precision
        model, report = cls.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True, **extra
        )
    except Exception as error:  # transformers raises many types for a damaged or unsuitable folder
        raise MiniClipError(f"{refusal}: {one_line(error)}") from error
    return model, sorted(name for name in report["missing_keys"] if not name.endswith("num_batches_tracked"))


def check_complete(missing: list[str], refusal: str) -> None:
    """`MiniClipError` when weights are missing."""
    if missing:
        raise MiniClipError(f"{refusal}: it lacks {len(missing)} weights, {missing[0]} first; save it whole")


def backbone_from_config(settings: dict[str, Any], kind: str) -> nn.Module:
    """An untrained backbone from its `config.json`; the weights of a run folder are loaded into it."""
    if settings.get("model_type") == "efficientnet-lite":
        try:
            return EfficientNetLite(EfficientNetLiteConfig(**settings))
        except TypeError as error:
            raise MiniClipError(
                f"the {kind} backbone's config.json does not describe an EfficientNet-Lite: {error}"
            ) from error
    config = _config_from(settings, kind)
    cls = _model_class(config, kind)
    try:
        return cast(nn.Module, cls._from_config(config, **_without_pooler(cls)).eval())
    except Exception as error:  # transformers raises its own types for an invalid config
        raise MiniClipError(f"cannot build the {kind} backbone from its config: {error}") from error


def backbone_settings(backbone: nn.Module) -> dict[str, Any]:
    """The settings with which `backbone_from_config` builds this backbone again."""
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


def _config_from(settings: dict[str, Any], kind: str) -> Any:
    from transformers import AutoConfig

    model_type = str(settings.get("model_type"))
    values = {key: value for key, value in settings.items() if key not in ("model_type", "transformers_version")}
    try:
        return AutoConfig.for_model(model_type, **values)
    except Exception as error:  # transformers raises its own types for an invalid config
        raise MiniClipError(f"cannot build the {kind} backbone from its config: {one_line(error)}") from error


def _model_class(config: Any, kind: str) -> Any:
    """The transformers class of a tower: that of the config's own name, `ViTModel` for `ViTConfig`.

    Errors: `MiniClipError` when there is none, or it takes other inputs.
    """
    import transformers as hf

    cls = getattr(hf, type(config).__name__.removesuffix("Config") + "Model", None)
    wanted = INPUT_NAMES[kind]
    refusal = f"--model.{kind}: {config.model_type!r} is not a {kind} backbone"
    if cls is None:
        raise MiniClipError(f"{refusal}: transformers has no such tower")
    if cls.main_input_name != wanted:
        raise MiniClipError(f"{refusal}: it takes {cls.main_input_name}, not {wanted}")
    if getattr(config, "is_encoder_decoder", False):
        raise MiniClipError(f"{refusal}: it decodes text as well; name an encoder, such as BERT")
    return cls


def _without_pooler(cls: Any) -> dict[str, bool]:
    """Omits an optional pooling layer: its weights were trained for another task, or not at all."""
    optional = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if optional else {}
