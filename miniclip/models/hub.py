"""Runs on the Hugging Face hub: which files are shared, their model card, download and upload.

In: a run's folder or its name `USER/NAME`. Out: a local folder, or the page of the model on the hub.
Only `FILES` are shared, without the training state and the training images for int8. `huggingface_hub` is imported
only when a function needs the hub.
"""

import re
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError, first_line
from miniclip.installation import program
from miniclip.models.config import ModelConfig

FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "metrics.jsonl",
    "curves.png",
)
# files of a whole model made by others: parts of large weights, and vocabularies if there is no tokenizer.json
FILES_OF_OTHERS = ("model-*.safetensors", "model.safetensors.index.json", "vocab.txt", "vocab.json", "merges.txt")
CARD = "README.md"
HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)

CARD_TEXT = """---
library_name: miniclip
pipeline_tag: zero-shot-image-classification # the hub's task for an image tower beside a text tower, as CLIP's
tags:
- clip
- image-text-retrieval
---

# {name}

A dual encoder of images and text, trained with MiniCLIP: `{vision}` and `{text}` into {dim} dimensions.

{quality}## Use

    from miniclip.models.checkpoint import Run

    encoders = Run.from_pretrained("{name}").encoders()
    text_embeds = encoders.encode_texts(["a dog in the snow"])
    rows, image_embeds = encoders.encode_images(["dog.jpg"])
    print(image_embeds @ text_embeds.T)  # rows have unit length, so this is the cosine similarity

To search images with it, export it to ONNX:

    python -m export --run {name} --out bundles/mine --data CAPTIONS

`CAPTIONS` are images with captions like those of the training data. The export calibrates int8 with them, because the
training images are not in this repository. Without captions, leave int8 out: `--precision fp32 fp16`.
"""

RECALL_KS = (1, 5, 10)
QUALITY_TEXT = """## Quality

Recall on the validation split of its training data, in percent, protocol karpathy (all captions of every image):

| | R@1 | R@5 | R@10 |
|---|---|---|---|
| image to text | {image_to_text} |
| text to image | {text_to_image} |

Their mean is {mean:.1f} %.

"""


def model_card(name: str, config: ModelConfig, metrics: dict[str, float]) -> str:
    """README.md of a run, with the front matter that the hub reads; `metrics` may be empty."""
    vision, text = public_name(config.vision), public_name(config.text)
    quality = ""
    if "mean_recall" in metrics:
        rows = {
            way: " | ".join(f"{100 * metrics[f'{way}_recall@{k}']:.1f}" for k in RECALL_KS)
            for way in ("image_to_text", "text_to_image")
        }
        quality = QUALITY_TEXT.format(**rows, mean=100 * metrics["mean_recall"])
    return CARD_TEXT.format(name=name, vision=vision, text=text, dim=config.projection_dim, quality=quality)


def public_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A run's `config.json` without folders of the machine that trained it."""
    model, train = settings["config"]["model"], settings["config"].get("train", {})
    public = {**model, **{tower: public_name(model[tower]) for tower in ("vision", "text")}}
    if "start_from" in train:
        train = {**train, "start_from": public_name(train["start_from"])}
    backbones = {
        name: {key: value for key, value in settings[name].items() if key != "_name_or_path"}
        for name in ("vision_backbone", "text_backbone")
    }
    return {**settings, **backbones, "config": {**settings["config"], "model": public, "train": train}}


def public_name(spec: str) -> str:
    """The spec of a backbone; for a folder on this machine, only its name."""
    return Path(spec).name if spec.startswith(("/", ".", "~")) else spec


def no_run(name_or_folder: str | Path, why: str = "") -> MiniClipError:
    """The error that says where no run was found, and how to train one."""
    make = f"{program('train')} --config C --data D --out {name_or_folder}"
    return MiniClipError(f"no run at {name_or_folder}{why}; make one with: {make}")


def local_folder(name_or_folder: str | Path) -> Path:
    """The folder at this path. If there is none and the path reads like USER/NAME, the run of that name from the hub.

    A run is downloaded once, into the cache of huggingface_hub; without a network, the cached one is used.
    Errors: `MiniClipError` when the hub has no run of that name, or cannot be reached.
    """
    folder, name = Path(name_or_folder), str(name_or_folder)
    if folder.exists() or not HUB_NAME.fullmatch(name):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(
            snapshot_download(name, allow_patterns=[*FILES, *FILES_OF_OTHERS, CARD], etag_timeout=5, max_workers=2)
        )
    except HFValidationError as error:  # the hub allows no such name (two hyphens in a row), so it is only a path
        raise no_run(name) from error
    except Exception as error:  # the client, its HTTP library and the disk raise different types
        raise no_run(name, f", and none of that name from the Hugging Face hub ({_reason(error)})") from error
    if not (folder / "config.json").exists():
        raise no_run(name, ", and the model of that name on the Hugging Face hub has no config.json")
    return folder


def download(name: str, patterns: list[str]) -> Path:
    """Download the matching files of the repository USER/NAME into the hub's own cache; offline, use the cached ones.

    Errors: `MiniClipError` when they can be neither downloaded nor found in the cache.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=10))
    except Exception as error:  # the client, its HTTP library and the disk raise different types
        raise MiniClipError(f"no file {name}, and no model of that name from the hub ({_reason(error)})") from error


def present_files(folder: Path) -> list[str]:
    """The names of the shared files that a folder has."""
    return [path.name for pattern in (*FILES, *FILES_OF_OTHERS) for path in sorted(folder.glob(pattern))]


def upload(folder: Path, repo_id: str, private: bool | None, token: str | None) -> str:
    """Upload a folder's files to the model repository `repo_id`, which is made if needed; returns its address.

    Errors: `MiniClipError` when it cannot be reached or written, or is public although `private` is set.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        url = str(api.create_repo(repo_id, private=private, exist_ok=True))
        if private and not api.model_info(repo_id).private:  # for an existing repository, the hub ignores `private`
            raise MiniClipError(f"{repo_id} is public already; make it private on {url}, or choose another name")
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a MiniCLIP run")
    except MiniClipError:
        raise
    except Exception as error:  # as above
        raise MiniClipError(f"cannot push to {repo_id} on the Hugging Face hub ({_reason(error)})") from error
    return url


def check_hub_name(repo_id: str) -> None:
    """`MiniClipError` unless the name reads like USER/NAME."""
    if not HUB_NAME.fullmatch(repo_id):
        raise MiniClipError(f"a model on the Hugging Face hub is called USER/NAME, got {repo_id!r}")


def _reason(error: Exception) -> str:
    """Why the hub refused, in one line, with the remedy if it is known."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        return "no such model, or no access to it: check the name, or log in with: hf auth login"
    return first_line(error)
