"""A folder of images becomes a table of embeddings, and stays up to date.

`miniclip.index` is this package, and by `miniclip.index(folder)` also the public function of that name
(`miniclip.search.api.index`): the package can be called.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that is called like the function of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return importlib.import_module("miniclip.search.api").index(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
