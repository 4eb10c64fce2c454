"""What axe-core, a checker of accessibility, says of a page in the browser."""

from importlib.resources import files
from typing import Any

# Rules that Gradio's own elements break, and none of ours; empty as of Gradio 6.31
GRADIO_OWN: set[str] = set()


def serious(tab: Any) -> list[str]:
    """What axe-core calls serious or critical on the screen as it is, but for Gradio's own."""
    tab.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical") and one["id"] not in GRADIO_OWN
        for node in one["nodes"]
    ]
