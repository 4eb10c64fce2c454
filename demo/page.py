"""One part of the page: an HTML skeleton, the script that moves it, and the functions that the script calls.

In: a name, such as `search` for static/search.html and static/search.js, and functions of one argument that answer
with JSON. Out: a `gr.HTML`. What went wrong reaches the script as `{"message": ...}`, a sentence for the page.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from miniclip.errors import MiniClipError

from .uploads import sentence

STATIC = Path(__file__).parent / "static"
Answering = Callable[[Any], dict[str, Any]]


def read_static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def part(name: str, *functions: Answering) -> gr.HTML:
    """The component; its script reaches each function as `server.NAME(argument)`, a promise of its answer."""
    return gr.HTML(
        "",
        html_template=read_static(f"{name}.html"),
        js_on_load=read_static(f"{name}.js"),
        server_functions=[told(function) for function in functions],
        elem_id=name,
        apply_default_css=False,
        padding=False,
    )


def told(function: Answering) -> Answering:
    """The function with errors as answers. Only a hand-made request gets to the second kind."""

    @wraps(function)
    def answering(values: Any) -> dict[str, Any]:
        try:
            return function(values)
        except MiniClipError as error:
            return {"message": sentence(error)}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return {"message": "This question cannot be read."}

    return answering
