"""A folder of images becomes a table of embeddings, and stays up to date.

`miniclip.index` is this package. It can also be called: `miniclip.index(folder)` is the public function
`miniclip.search.api.index`.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that can be called like the function with its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return importlib.import_module("miniclip.search.api").index(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
