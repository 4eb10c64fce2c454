"""A bundle: the folder that serving needs, and its manifest of hashes, fingerprint and certificate.

    README.md  config.json  preprocessor_config.json  tokenizer.json  tokenizer_config.json  manifest.json
    onnx/vision_model{,_fp16,_quantized}.onnx  onnx/text_model{,_fp16,_quantized}.onnx

In: such a folder, ours or anybody's in the Hugging Face / transformers.js layout. Out: a `Bundle` whose files were
checked against their SHA-256 before anything opened them. A bundle without a manifest is served, unchecked and said so.
"""

import hashlib
import json
import mmap
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.inference.precision import PRECISIONS
from miniclip.inference.score_calibration import ScoreCalibration
from miniclip.inference.tokenizer import Tokenizer

MANIFEST_FORMAT = 1
TOWERS = ("vision", "text")
SETTINGS = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


def onnx_name(tower: str, precision: str) -> str:
    """The place of one tower at one precision inside a bundle, such as `onnx/text_model_fp16.onnx`."""
    return f"onnx/{tower}_model{PRECISIONS[precision].suffix}.onnx"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `manifest` is empty for a bundle made by others."""

    folder: Path
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> "Bundle":
        """Open and check the layout; model files are hashed when they are asked for (`model_path`).

        Errors: `MiniClipError` when the folder is no bundle, comes from a newer format, or a file does not match.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise MiniClipError(f"no bundle at {folder}; make one with: python -m export --run RUN --out {folder}")
        manifest: dict[str, Any] = {}
        if (folder / "manifest.json").exists():
            manifest = read_manifest(folder / "manifest.json")
        bundle = cls(folder, manifest)
        if not bundle.precisions:
            raise MiniClipError(f"{folder} holds no onnx/vision_model*.onnx with its text_model; is it a bundle?")
        for name in SETTINGS:
            if (folder / name).exists() or name in manifest.get("files", {}):
                bundle.check_file(name)
            elif name in ("preprocessor_config.json", "tokenizer.json"):
                raise MiniClipError(f"the bundle {folder} lacks {name}; export it again")
        return bundle

    @cached_property
    def precisions(self) -> list[str]:
        """The precisions for which both towers are there, in the order fp32, fp16, int8."""
        return [p for p in PRECISIONS if all((self.folder / onnx_name(tower, p)).exists() for tower in TOWERS)]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def fingerprint(self) -> str:
        """Names the embedding space: equal for all precisions of one export, different for any other weights."""
        if self.manifest:
            return str(self.manifest["fingerprint"])
        parts = [sha256_of(self.folder / onnx_name(tower, self.precisions[0])) for tower in TOWERS]
        parts += [sha256_of(self.folder / name) for name in ("tokenizer.json", "preprocessor_config.json")]
        return fingerprint_of(parts)

    @property
    def logit_scale(self) -> float:
        """log(1/T); CLIP's upper bound log(100) where a bundle does not say."""
        return float(self.manifest.get("logit_scale", 4.6052))

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The measured parity and speed of every precision, if `export.benchmark` has run on this bundle."""
        return self.manifest.get("certificate")

    @cached_property
    def match(self) -> ScoreCalibration | None:
        """How likely a score is a match, if the export could measure it."""
        where, dim = str(self.folder / "manifest.json"), self.manifest.get("embedding_dim")
        return ScoreCalibration.from_manifest(self.manifest.get("match"), where, dim)

    @cached_property
    def transform(self) -> ImageTransform:
        return ImageTransform.from_file(self.folder / "preprocessor_config.json")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.folder)

    def model_path(self, tower: str, precision: str) -> Path:
        """The checked ONNX file of one tower; `MiniClipError` when it is missing or was changed."""
        if precision not in self.precisions:
            raise MiniClipError(f"{self.folder} has no {precision}; it has {', '.join(self.precisions)}")
        name = onnx_name(tower, precision)
        self.check_file(name)
        if _names_other_files(self.folder / name):
            raise MiniClipError(
                f"{self.folder / name} keeps its weights in other files, which nothing checks; export the bundle again"
            )
        return self.folder / name

    def check_file(self, name: str) -> None:
        """Compare one file with its hash in the manifest."""
        if not self.manifest:
            return
        expected = self.manifest["files"].get(name)
        path = self.folder / name
        if expected is None:
            raise MiniClipError(f"{path} is not listed in manifest.json; export the bundle again")
        if not path.exists():
            raise MiniClipError(f"{path} is missing; export the bundle again, or copy it again")
        try:
            matches = sha256_of(path) == expected["sha256"]
        except OSError as error:
            raise MiniClipError(f"cannot read {path}: {error.strerror}; copy or export the bundle again") from None
        if not matches:
            raise MiniClipError(f"{path} does not match its SHA-256 in manifest.json; copy or export the bundle again")


def _names_other_files(path: Path) -> bool:
    """Whether an ONNX file has external data."""
    if not path.exists() or path.stat().st_size == 0:
        return False  # onnxruntime says what is wrong with it
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"location") < 0:  # the key without which there is none; most models need not be parsed
            return False
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            return _has_external_data(onnx.ModelProto.FromString(content[:]))
        except DecodeError:
            return False  # as above


def _has_external_data(part: Any) -> bool:
    """Whether any tensor of a protobuf message has, also one of a graph inside a node or a function."""
    import onnx
    from google.protobuf.message import Message

    if isinstance(part, onnx.TensorProto):
        return part.data_location == onnx.TensorProto.EXTERNAL or bool(part.external_data)
    inside = (value for field, value in part.ListFields() if field.message_type)
    return any(
        _has_external_data(own) for value in inside for own in ([value] if isinstance(value, Message) else value)
    )


def fingerprint_of(parts: list[str]) -> str:
    """One SHA-256 over the hashes of weights, tokenizer and preprocessing, and the dimension."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of one file."""
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file of a bundle but the manifest, with its SHA-256 and size: the manifest's `files`."""
    return {
        path.relative_to(folder).as_posix(): file_entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """A bundle's manifest; `MiniClipError` when it cannot be read, is none, or of a newer format."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MiniClipError(f"{path} is not a manifest ({error}); copy or export the bundle again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise MiniClipError(f"{path} is not a manifest; copy or export the bundle again")
    if manifest["format"] > MANIFEST_FORMAT:
        raise MiniClipError(
            f"{path} has format {manifest['format']}, this MiniCLIP reads up to {MANIFEST_FORMAT}; update"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(f, dict) and "sha256" in f for f in files.values()):
        raise MiniClipError(f"{path} lists no files with hashes; copy or export the bundle again")
    if not isinstance(manifest.get("fingerprint"), str):
        raise MiniClipError(f"{path} has no fingerprint; copy or export the bundle again")
    scale = manifest.get("logit_scale", 0.0)
    if not isinstance(scale, int | float) or not abs(scale) < 100:  # no NaN, and nothing that exp could not take
        raise MiniClipError(f"{path}: logit_scale is no number; copy or export the bundle again")
    if not isinstance(manifest.get("certificate"), dict | None):
        raise MiniClipError(f"{path}: certificate is no object; copy or export the bundle again")
    return manifest
