"""The tabs of the page: every module in this folder is one.

A new tab NAME needs:

- tabs/NAME.py, which defines `TAB`
- static/NAME.html: its HTML, then its script in `<script>`
- its words in every file of languages/, among them its title `tab_NAME`
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

from ..app_state import AppState
from ..page import Handler


@dataclass(frozen=True)
class Tab:
    """One tab. Its script calls the functions that `handlers` returns, by their names."""

    position: int  # tabs are in ascending order
    handlers: Callable[[AppState], Mapping[str, Handler]]
    is_public: bool = True  # whether a page for other people has it, too


def find_tabs() -> dict[str, Tab]:
    """All tabs by name, in their order on the page."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    tabs: dict[str, Tab] = {name: import_module(f"{__name__}.{name}").TAB for name in names}
    return dict(sorted(tabs.items(), key=lambda item: item[1].position))
