"""One part of the page: an HTML skeleton, the script that drives it, and the Python handlers that the script calls.

In: a name, such as `search` for static/search.html and static/search.js, and handlers by the names that the script
uses. Out: a `gr.HTML`. Errors reach the script as `{"message": ...}`, one sentence for the page.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from miniclip.errors import MiniClipError

from .cards import render_skeleton
from .errors import PageError, logger, sentence
from .form import Form
from .i18n import TABLES, speaking, t

STATIC = Path(__file__).parent / "static"
Handler = Callable[[Form], dict[str, Any]]


def read_static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def part(name: str, handlers: Mapping[str, Handler], scripts: Sequence[str] = ()) -> gr.HTML:
    """The component. Its script calls a handler as `server.NAME(form)`, which is a promise of the answer.

    `scripts` are files that run one after the other in one scope; by default the one of the part's name.
    """
    return skeleton(
        name,
        js_on_load="\n".join(read_static(f"{script}.js") for script in scripts or (name,)),
        server_functions=[answering(name, handler) for name, handler in handlers.items()],
        elem_classes="part",
    )


def skeleton(name: str, is_public: bool = False, **options: Any) -> gr.HTML:
    """A component of static/NAME.html in every language. The browser takes its own (static/page.js)."""
    html = {}
    for language in TABLES:
        with speaking(language):
            html[language] = render_skeleton(name, is_public=is_public)
    template = "${html[miniclip.language]}"
    return gr.HTML(
        "", html_template=template, html=html, elem_id=name, apply_default_css=False, padding=False, **options
    )


def answering(name: str, handler: Handler) -> Handler:
    """The handler with its errors as answers. An error that is not a user's is logged and reported as internal."""

    def answer(form: Any) -> dict[str, Any]:
        try:
            if not isinstance(form, dict):
                raise PageError(t("unreadable_request"))
            return handler(form)
        except PageError as error:
            return {"message": sentence(error), **error.facts}
        except MiniClipError as error:
            return {"message": sentence(error)}
        except Exception:
            logger.exception("internal error in “%s”", name)
            return {"message": t("internal_error")}

    answer.__name__ = name  # the name that Gradio gives to the script
    return answer
