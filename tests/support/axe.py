"""Findings of axe-core, an accessibility checker, about a page in the browser."""

from importlib.resources import files
from typing import Any


def serious(tab: Any) -> list[str]:
    """Serious and critical findings on the current screen."""
    tab.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
