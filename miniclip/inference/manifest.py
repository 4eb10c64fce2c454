"""The manifest of a bundle: SHA-256 of every file, the fingerprint of the embedding space, and measured results.

In: a bundle's folder. Out: `manifest.json`, checked when it is read.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError

MANIFEST_FORMAT = 1


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of(parts: list[str]) -> str:
    """One SHA-256 over the hashes of weights, tokenizer and preprocessing, and the dimension."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_entry(path: Path) -> dict[str, Any]:
    """The manifest's entry for one file."""
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file of a bundle except the manifest, with SHA-256 and size: the manifest's `files`."""
    return {
        path.relative_to(folder).as_posix(): file_entry(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """A bundle's manifest; `MiniClipError` when it is unreadable, invalid, or has a newer format."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MiniClipError(f"{path} is not a manifest ({error}); copy or export the bundle again") from error
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
    if not isinstance(scale, int | float) or not abs(scale) < 100:  # neither NaN nor too large for exp
        raise MiniClipError(f"{path}: logit_scale is not a number; copy or export the bundle again")
    if not _is_line(manifest.get("sigmoid")):
        raise MiniClipError(f"{path}: sigmoid is not a scale and a bias; copy or export the bundle again")
    if not isinstance(manifest.get("certificate"), dict | None):
        raise MiniClipError(f"{path}: certificate is not an object; copy or export the bundle again")
    return manifest


def _is_line(value: Any) -> bool:
    """Whether an entry is missing, or has a valid scale and bias."""
    if value is None:
        return True
    if not isinstance(value, dict):
        return False
    scale, bias = value.get("scale"), value.get("bias")
    if not (isinstance(scale, int | float) and isinstance(bias, int | float)):
        return False
    return 0 < scale < 1e4 and abs(bias) < 1e4
