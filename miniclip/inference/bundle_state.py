"""What was measured on this machine of a bundle made by others, kept in the cache by the bundle's fingerprint."""

import contextlib
import json
from typing import Any

import onnxruntime as ort

from miniclip.cache import cache_folder, write_cached
from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle

FORMAT = 2


def read_state(bundle: Bundle) -> dict[str, Any]:
    """The measurements by name; empty if nothing was measured, or only by another version."""
    try:
        state = json.loads((cache_folder() / "bundles" / f"{bundle.fingerprint}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) and state.get("format") == FORMAT else {}


def write_state(bundle: Bundle, measured: dict[str, Any]) -> None:
    """Add measurements; if the cache cannot be written, the next start repeats them."""
    with contextlib.suppress(MiniClipError):
        file = cache_folder() / "bundles" / f"{bundle.fingerprint}.json"
        write_cached(file, json.dumps({**read_state(bundle), **measured, "format": FORMAT}).encode())


def signature(bundle: Bundle, precision: str) -> list[Any]:
    """Changes with the files that measurements at this precision depend on, and with onnxruntime."""
    names = sorted({*bundle.layout.files(precision).values(), *bundle.layout.settings})
    stats = [path.stat() for path in (bundle.folder / name for name in names) if path.exists()]
    return [ort.__version__, *([stat.st_size, stat.st_mtime_ns] for stat in stats)]
