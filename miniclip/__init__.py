"""MiniCLIP: small CLIP-style models that embed images and text, and search over images.

    import miniclip

    model = miniclip.load()
    photos = miniclip.index("~/Pictures", model)
    for hit in photos.search("a dog on the beach", top_k=5):
        print(hit.path, hit.score)

Each name is loaded when it is first used, so that `import miniclip` itself is fast.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from miniclip.errors import MiniClipError

__version__ = "0.2.0"

# when onnxruntime 1.29 or later is imported, it starts to send usage data and a device identifier to its maker
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from miniclip.search.api import Hit as Hit
    from miniclip.search.api import Index as Index
    from miniclip.search.api import index as index
    from miniclip.search.api import open_index as open_index
    from miniclip.search.model import Model as Model
    from miniclip.search.model import load as load

__all__ = ["Hit", "Index", "MiniClipError", "Model", "__version__", "index", "load", "open_index"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name == "index":  # the package itself can be called: see miniclip/index/__init__.py
        return importlib.import_module("miniclip.index")
    if name in __all__:
        module = "model" if name in ("Model", "load") else "api"
        return getattr(importlib.import_module(f"miniclip.search.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
