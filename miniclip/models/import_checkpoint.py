"""Checkpoints of the original student project (github.com/Aryan-IIT/miniCLIP_DL) -> run folders.

In: a `.pt` file or its name on the hub, and the folders or hub ids of its two backbones. The file holds
`vision_encoder.model.*` (a ViT of transformers or a ResNet of torchvision), `text_encoder.model.*` (a RoBERTa), a
`projection` for each, and `temperature`. The backbones supply the facts that tensors do not hold: number of heads,
tokenizer and preprocessing. Their own weights are not read. `miniclip.models.import_projections` imports a checkpoint
that holds the two projections of a CLIP.
Out: a complete run folder. An import that fails writes nothing.
"""

import json
import math
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.files import write_json
from miniclip.inference.tokenizer import Tokenizer, read_tokenizer_config
from miniclip.models.backbones import backbone_from_config, read_backbone_config
from miniclip.models.checkpoint import begin_run, save_run
from miniclip.models.config import Config, config_from_dict
from miniclip.models.dual_encoder import LOGIT_SCALE_MAX, DualEncoder, TextTower, build_model
from miniclip.models.import_projections import load_projections
from miniclip.models.pretrained import resolve_backbone
from miniclip.models.pt_file import find_checkpoint, read_checkpoint

VISION_DEFAULTS = {
    "vit": "facebook/dino-vits16",
    "resnet": "microsoft/resnet-101",
    "clip": "openai/clip-vit-base-patch32",
}
MAX_TOKENS = 128  # the original project cuts captions at this length

# the file has these weights, but the model does not use them: pooling layers, ImageNet classifier, position numbers
DROPPED = re.compile(
    r"(vision|text)_encoder\.model\.pooler\..*|vision_encoder\.model\.fc\..*"
    r"|text_encoder\.model\.embeddings\.(position_ids|token_type_ids)"
)
VIT_NAMES = (
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj", "attention.attention.query"),
    (r"attention\.k_proj", "attention.attention.key"),
    (r"attention\.v_proj", "attention.attention.value"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
)


def import_checkpoint(name: str | Path, vision: str | None, text: str, out: Path) -> str:
    """Turn a checkpoint into the run folder `out`; returns a line that describes the checkpoint.

    `name` is a file, or USER/NAME on the hub. `vision` and `text` are specs as in `resolve_backbone`. Without `vision`,
    it is the backbone that the original project used for that kind of tower. A ResNet's spec supplies only the
    preprocessing, because the weights give the sizes. For the projections of a CLIP, `vision` names the CLIP, and
    `text` is not used.
    Errors: `MiniClipError` when `out` is not empty, the file is not such a checkpoint, a backbone is not found, or a
    weight is missing, unknown or of another shape. `out` is then unchanged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MiniClipError(f"{out} already holds files; choose another --out")
    checkpoint = find_checkpoint(name)
    kind, state = read_checkpoint(checkpoint)
    if kind == "original":
        own = {key: value for key, value in state.items() if not DROPPED.fullmatch(key)}
        return _import_original(own, checkpoint, vision, text, out)
    clip = vision or VISION_DEFAULTS["clip"]
    folder = resolve_backbone(clip)
    config, transform, model = load_projections(state, checkpoint, folder, clip)
    _write(out, config, transform, folder, model)
    return f"the projections of a CLIP, on {clip}"


def _import_original(state: dict[str, Tensor], checkpoint: Path, vision: str | None, text: str, out: Path) -> str:
    kind = "resnet" if "vision_encoder.model.conv1.weight" in state else "vit"
    vision = vision or VISION_DEFAULTS[kind]
    vision_folder, text_folder = resolve_backbone(vision, weights=False), resolve_backbone(text, weights=False)
    settings = _resnet_settings(state, checkpoint) if kind == "resnet" else _settings(vision_folder, "vit", "--vision")
    vision_backbone = backbone_from_config(settings, "vision")
    text_backbone = backbone_from_config(_settings(text_folder, "roberta", "--text"), "text")
    with tempfile.TemporaryDirectory() as tmp:
        transform, tokenizer = _preprocessing(vision_folder, Path(tmp)), _tokenizer(text_folder, Path(tmp))
        linear = "vision_encoder.projection.weight" in state
        matrix = f"vision_encoder.projection.{'' if linear else 'projection.'}weight"
        values = {
            "vision": vision,
            "text": text,
            "vision_pooling": "auto" if kind == "resnet" else "cls",
            "text_pooling": "cls",
            "head": "affine" if linear else "mlp",
            "projection_dim": _rows(state, matrix, checkpoint),
            "image_size_px": transform.height_px,
            "max_tokens": min(MAX_TOKENS, TextTower(text_backbone, "cls").max_positions, tokenizer.max_tokens),
        }
        config = config_from_dict({"model": values}, source=str(checkpoint))
        model = build_model(config.model, vision_backbone, text_backbone)
        _fill(model, state, kind, checkpoint)
        _write(out, config, transform, Path(tmp), model)
    scale = f"logits times {float(model.logit_scale.detach().exp()):.1f}"
    return f"{kind} and roberta, {config.model.head} heads into {config.model.projection_dim} dimensions, {scale}"


def logit_scale_of(temperature: float) -> float:
    """Our `logit_scale` for the original's `temperature`, at most log 100 as in our model.

    The published code multiplies the logits by exp(temperature) and starts at 2.6592 = log(1 / 0.07), so its value is
    already the logarithm. A value in (0, 1] is read as the temperature of the papers, which divides the logits.
    """
    if not math.isfinite(temperature):
        raise MiniClipError(f"the temperature is {temperature}: the training failed; import another checkpoint")
    return min(math.log(1 / temperature) if 0 < temperature <= 1 else temperature, LOGIT_SCALE_MAX)


def _fill(model: DualEncoder, state: dict[str, Tensor], kind: str, path: Path) -> None:
    """Copy every weight into the model; `MiniClipError` names the first missing, unknown or misshapen one."""
    own = {name: value for name, value in model.state_dict().items() if ".feature_" not in name}
    if "vision_encoder.model.layers.0.layernorm_before.weight" in state:
        kind = "vit of transformers 5"  # its names are the same as ours
    linear = "vision_encoder.projection.weight" in state
    theirs = {name: _their_name(name, kind, linear) for name in own}
    hint = "--vision and --text must name the backbones that its training started from"
    if missing := [name for name in theirs.values() if name not in state]:
        raise MiniClipError(f"{path} lacks {len(missing)} of {len(own)} weights, {missing[0]} first; {hint}")
    if unknown := sorted(state.keys() - theirs.values()):
        raise MiniClipError(f"{path} has unknown weights: {len(unknown)}, {unknown[0]} first; {hint}")
    if state["temperature"].numel() == 1:  # a scalar, or a vector of one
        state = {**state, "temperature": torch.tensor(logit_scale_of(float(state["temperature"])))}
    for name, value in own.items():
        given = state[theirs[name]]
        if given.shape != value.shape or given.is_floating_point() != value.is_floating_point():
            shapes = f"{tuple(given.shape)} {given.dtype}, not {tuple(value.shape)} {value.dtype}"
            raise MiniClipError(f"{path}: {theirs[name]} is {shapes}; {hint}")
    model.load_state_dict({name: state[theirs[name]] for name in own}, strict=False)


def _their_name(name: str, vision_kind: str, linear: bool) -> str:
    """Our name of a weight -> the original project's name. Its linear head is named like a part of our MLP head."""
    if name == "logit_scale":
        return "temperature"
    part, _, rest = name.partition(".")
    if part.endswith("_head"):
        rest = rest.removeprefix("projection.") if linear else rest
        return f"{part.removesuffix('_head')}_encoder.projection.{rest}"
    rest = rest.removeprefix("backbone.")
    if part == "vision" and vision_kind == "resnet":
        rest = _torchvision_name(rest)
    elif part == "vision" and vision_kind == "vit":
        for pattern, replacement in VIT_NAMES:
            rest = re.sub(pattern, replacement, rest)
    return f"{part}_encoder.model.{rest}"


def _torchvision_name(name: str) -> str:
    """`encoder.stages.0.layers.1.layer.2.convolution.weight` -> `layer1.1.conv3.weight`."""
    name = re.sub(r"^encoder\.stages\.(\d+)\.layers\.", lambda match: f"layer{int(match[1]) + 1}.", name)
    name = name.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
    short = {"convolution": "conv", "normalization": "bn"}
    return re.sub(
        r"(?:embedder\.embedder|layer\.(\d+))\.(convolution|normalization)",
        lambda match: f"{short[match[2]]}{int(match[1] or 0) + 1}",
        name,
    )


def _rows(state: dict[str, Tensor], name: str, path: Path) -> int:
    """The first dimension of a weight."""
    if name not in state or state[name].ndim == 0:
        raise MiniClipError(f"{path} has no matrix {name}, so it is not a checkpoint of the original MiniCLIP")
    return len(state[name])


def _resnet_settings(state: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """transformers' configuration of torchvision's ResNet, which has its strides in the 3x3 convolutions."""
    prefix = "vision_encoder.model."
    blocks = {match[0] for name in state if (match := re.match(rf"{re.escape(prefix)}layer\d+\.\d+\.", name))}
    depths = Counter(block.removeprefix(prefix).partition(".")[0] for block in blocks)
    stages = [f"layer{number + 1}" for number in range(len(depths))]
    return {
        "model_type": "resnet",
        "layer_type": "bottleneck",
        "embedding_size": _rows(state, f"{prefix}conv1.weight", path),
        "hidden_sizes": [_rows(state, f"{prefix}{stage}.0.conv3.weight", path) for stage in stages],
        "depths": [depths[stage] for stage in stages],
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }


def _settings(folder: Path, model_type: str, flag: str) -> dict[str, Any]:
    """`config.json` of a backbone without its dtype: the backbone is always built in float32."""
    settings = read_backbone_config(folder)
    if not isinstance(settings, dict) or settings.get("model_type") != model_type:
        raise MiniClipError(f"{flag}: {folder} is not a {model_type} model; name the checkpoint's initial backbone")
    return {key: value for key, value in settings.items() if key not in ("dtype", "torch_dtype")}


def _preprocessing(folder: Path, tmp: Path) -> ImageTransform:
    """The backbone's preprocessing as transformers' ViTImageProcessor reads it; the original project used no other.

    It squashes images to a square, even if an old file gives the size as one number, and resizes bilinearly by default.
    """
    path = folder / "preprocessor_config.json"
    try:
        values = {"resample": 2, **json.loads(path.read_text(encoding="utf-8"))}
        size = values["size"]
        edge = size.get("shortest_edge") if isinstance(size, dict) else size
        if edge is not None and not values.get("do_center_crop"):
            values["size"] = {"height": edge, "width": edge}
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return ImageTransform.from_file(path)  # raises the error that explains the fault
    write_json(tmp / path.name, values)
    return ImageTransform.from_file(tmp / path.name)


def _tokenizer(folder: Path, tmp: Path) -> Tokenizer:
    """The backbone's tokenizer, copied to `tmp`, with the settings that RoBERTa's own files lack."""
    try:
        (tmp / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    except OSError as error:
        raise MiniClipError(
            f"{folder} has no tokenizer.json (the fast tokenizer); save it with transformers"
        ) from error
    unsaid = {"pad_token": "<pad>", "model_max_length": 512}
    write_json(tmp / "tokenizer_config.json", {**unsaid, **read_tokenizer_config(folder)})
    return Tokenizer.from_folder(tmp)


def _write(out: Path, config: Config, transform: ImageTransform, text_folder: Path, model: DualEncoder) -> None:
    """Write the run folder; it appears complete or not at all."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as tmp:
            partial = Path(tmp) / "run"
            begin_run(partial, config, transform, text_folder)
            save_run(partial, config, model, metrics={})
            partial.rename(out)
    except OSError as error:
        raise MiniClipError(f"cannot write {out}: {error.strerror}; choose another --out") from error
