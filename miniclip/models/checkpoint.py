"""Run folders, which training writes and export reads. Every file appears complete or not at all.

    model.safetensors  config.json  tokenizer.json  tokenizer_config.json  preprocessor_config.json
    metrics.jsonl  curves.png  retrieval.png  tensorboard/
    calibration.npz  training_state.pt (`--resume` continues from it)

`config.json` holds the resolved configuration and the configs of both backbones, so that a run opens without a hub.
`miniclip.models.hub` says which of these files are shared.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from miniclip.cache import cache_folder, write_cached
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError, one_line
from miniclip.files import replace_atomically, write_json
from miniclip.inference.manifest import fingerprint_of, sha256_of
from miniclip.inference.tokenizer import Tokenizer
from miniclip.models.backbones import backbone_from_config, backbone_settings
from miniclip.models.config import Config, config_from_dict
from miniclip.models.device import Device
from miniclip.models.dual_encoder import DualEncoder, build_model
from miniclip.models.hub import (
    CARD,
    check_hub_name,
    local_folder,
    model_card,
    no_run,
    present_files,
    public_settings,
    upload,
)
from miniclip.models.tokenizer_files import write_tokenizer
from miniclip.models.torch_encoder import TorchEncoders
from miniclip.models.whole_models import holds_whole_model, load_dual_encoder

RUN_FORMAT = 1
STATE_FORMAT = 1  # of training_state.pt, also if the file names no format


@dataclass(frozen=True)
class Run:
    """An opened run: the model in evaluation mode, its image transform and its tokenizer."""

    folder: Path
    config: Config
    model: DualEncoder
    transform: ImageTransform
    tokenizer: Tokenizer
    metrics: dict[str, float]
    settings: Path  # the folder of the tokenizer and the preprocessor as MiniCLIP reads them

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path) -> "Run":
        """The same as `load_run`, under the name that transformers uses."""
        return load_run(name_or_folder)

    def save_pretrained(self, folder: str | Path, name: str | None = None) -> None:
        """Copy the files for `from_pretrained` to `folder`, with a README.md (`name` is its title) if there is none.

        It copies neither `training_state.pt` nor files with images of the data (the calibration file and the retrieval
        figure). So a copy cannot be trained further, and its export to int8 needs `--data`.
        Errors: `MiniClipError` if another run is trained in `folder`, or it cannot be written.
        """
        folder = Path(folder)
        if not (folder.exists() and folder.samefile(self.folder)):
            if (folder / "training_state.pt").exists():
                raise MiniClipError(f"{folder} holds the training of another run; choose another folder")
            self._copy_to(folder)
        if not (folder / CARD).exists():
            card = model_card(name or folder.resolve().name, self.config.model, self.metrics)
            replace_atomically(folder / CARD, lambda path: path.write_text(card, encoding="utf-8"))

    def _copy_to(self, folder: Path) -> None:
        """Copy the existing shared files, `config.json` last, so that an incomplete copy does not pass for a run."""
        _make_folder(folder)
        names = [name for name in present_files(self.folder) if name != "config.json"]
        if (self.folder / CARD).exists() and not (folder / CARD).exists():
            names.append(CARD)
        for name in names:
            replace_atomically(folder / name, partial(shutil.copyfile, self.folder / name))
        settings = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        write_json(folder / "config.json", settings if holds_whole_model(self.folder) else public_settings(settings))

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload the files of `save_pretrained` to USER/NAME on the Hugging Face hub; returns the model's address.

        A missing repository is created; it is public unless `private` or the organisation says otherwise. The default
        `token` is that of `hf auth login`. Your own README.md in the run's folder becomes the model card.
        Errors: `MiniClipError` for a bad name, no network, no right to write, or a public repository if `private`.
        """
        check_hub_name(repo_id)
        with tempfile.TemporaryDirectory() as tmp:
            self.save_pretrained(tmp, name=repo_id)
            return upload(Path(tmp), repo_id, private, token)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, preprocessing and dimension: names the embedding space, also in the bundle."""
        files = [
            *weight_files(self.folder),
            self.settings / "tokenizer.json",
            self.settings / "preprocessor_config.json",
        ]
        return fingerprint_of([*map(sha256_of, files), str(self.config.model.projection_dim)])

    def encoders(
        self, autocast: bool = False, reuse_memory: bool = True, device: Device | None = None
    ) -> TorchEncoders:
        """The model with the interface of a bundle; it is moved to `device`, the CPU by default."""
        return TorchEncoders(self.model, self.transform, self.tokenizer, autocast, reuse_memory, device)


def begin_run(folder: Path, config: Config, transform: ImageTransform, text_folder: Path) -> Tokenizer:
    """Make a run folder with tokenizer and preprocessing; returns the run's tokenizer."""
    _make_folder(folder)
    write_json(folder / "preprocessor_config.json", transform.to_dict())
    return write_tokenizer(text_folder, folder, config.model.max_tokens)


def save_run(folder: Path, config: Config, model: DualEncoder, metrics: dict[str, float]) -> None:
    """Write weights and configuration; `metrics` are those of the saved weights."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    replace_atomically(folder / "model.safetensors", partial(_save_weights, state))
    settings = {
        "format": RUN_FORMAT,
        "config": config.to_dict(),
        "vision_backbone": backbone_settings(model.vision.backbone),
        "text_backbone": backbone_settings(model.text.backbone),
        "metrics": metrics,
    }
    write_json(folder / "config.json", settings)


def load_run(name_or_folder: str | Path) -> Run:
    """Open a run: a folder or, if there is none, USER/NAME on the Hugging Face hub (see `miniclip.models.hub`).

    A whole model in Hugging Face's format, such as CLIP or SigLIP, counts as a run without further training.

    Errors: `MiniClipError` if it is not a run, cannot be downloaded, is damaged, or has a newer format.
    """
    folder = local_folder(name_or_folder)
    settings_path = folder / "config.json"
    if not settings_path.exists():
        raise no_run(name_or_folder)
    if (folder / "manifest.json").exists():
        raise MiniClipError(
            f"{name_or_folder} is a bundle, not a run; use --bundle for it, or name the run it came from"
        )
    if holds_whole_model(folder):
        return _whole_model(folder, str(name_or_folder))
    settings, config = read_run_config(folder)
    try:
        vision = backbone_from_config(settings["vision_backbone"], "vision")
        text = backbone_from_config(settings["text_backbone"], "text")
        model = build_model(config.model, vision, text)
    except MiniClipError:
        raise
    except Exception as error:  # wrong types and absurd sizes fail anywhere inside the backbones
        raise no_config(settings_path, error) from error
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    except Exception as error:  # the disk, safetensors and torch raise different types
        path = folder / "model.safetensors"
        raise MiniClipError(f"cannot load {path}: {one_line(error)}; copy the run again") from error
    transform = ImageTransform.from_file(folder / "preprocessor_config.json")
    return Run(
        folder, config, model.eval(), transform, Tokenizer.from_folder(folder), settings.get("metrics", {}), folder
    )


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights: one, or the parts of a large model."""
    return sorted(folder.glob("model*.safetensors")) or [folder / "model.safetensors"]


def _whole_model(folder: Path, name: str) -> Run:
    """A model made by others as a run. Its tokenizer and preprocessor are kept in the cache, in the form of a run."""
    config, model = load_dual_encoder(folder, name)
    transform = ImageTransform.from_file(folder / "preprocessor_config.json")
    with tempfile.TemporaryDirectory() as tmp:
        own = Path(tmp)
        shutil.copyfile(folder / "preprocessor_config.json", own / "preprocessor_config.json")
        write_tokenizer(folder, own, config.max_tokens)
        names = sorted(path.name for path in own.iterdir())
        settings = cache_folder() / "settings" / fingerprint_of([sha256_of(own / name) for name in names])[:24]
        for file in names:
            write_cached(settings / file, (own / file).read_bytes())
    return Run(folder, Config(model=config), model, transform, Tokenizer.from_folder(settings), {}, settings)


def read_run_config(folder: Path) -> tuple[dict[str, Any], Config]:
    """A run's `config.json` as a dictionary and as a `Config`; `MiniClipError` if it is invalid or too new."""
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if "format" not in settings and "model_type" in settings:
            raise MiniClipError(
                f"{folder} holds a {settings['model_type']}: neither a run nor a model of images and text like CLIP "
                "or SigLIP; python -m train takes it as --model.vision or --model.text"
            )
        if settings["format"] > RUN_FORMAT:
            raise MiniClipError(f"{path} has format {settings['format']}, newer than this MiniCLIP; update it")
        if not isinstance(settings.get("metrics", {}), dict):
            raise TypeError("metrics")
        return settings, config_from_dict(settings["config"], source=str(path))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise no_config(path, error) from error


def no_config(path: Path, error: Exception) -> MiniClipError:
    return MiniClipError(f"{path} is not a run's config ({error!r}); copy the run again, or train again")


def holds_run(folder: Path) -> bool:
    """Whether the folder has a run, which another training would overwrite."""
    return any((folder / name).exists() for name in ("config.json", "training_state.pt"))


def save_training_state(folder: Path, state: dict[str, Any]) -> None:
    """Save the state that `--resume` needs: parameters, optimiser, schedule and epoch."""

    def save(path: Path) -> None:
        with path.open("wb") as file:  # with a path instead, torch's error would not say why it cannot write
            torch.save({"format": STATE_FORMAT, **state}, file)

    replace_atomically(folder / "training_state.pt", save)


def _save_weights(state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(state, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MiniClipError(f"cannot write {folder}: {error.strerror}; choose another folder") from error


def load_training_state(folder: Path) -> dict[str, Any] | None:
    """The last saved state, from within an epoch or from its end; None if there is none."""
    path = folder / "training_state.pt"
    if not path.exists():
        return None
    try:
        state = cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
        written = int(state.get("format", STATE_FORMAT))
    except Exception as error:  # torch raises many types for a damaged file
        raise MiniClipError(f"cannot resume from {path}: {error}; choose another --out to start again") from error
    if written > STATE_FORMAT:
        raise MiniClipError(f"{path} has format {written}, newer than this MiniCLIP; update it")
    return state
