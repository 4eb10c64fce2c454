"""One part of the page: its HTML, the script that drives it, and the Python handlers that the script calls.

In: a name, such as `search` for static/search.html, and handlers by the names that the script uses. Out: a `gr.HTML`.
Errors reach the script as `{"message": ...}`, one sentence for the page.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from miniclip.errors import MiniClipError

from .cards import render_text
from .errors import PageError, logger, sentence
from .form import Form
from .i18n import TABLES, in_language, t

STATIC = Path(__file__).parent / "static"
Handler = Callable[[Form], dict[str, Any]]


def read_static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def split_script(part: str) -> tuple[str, str]:
    """The HTML of a part's file and the script at its end; "" if it has none."""
    html, _, script = part.partition("<script>\n")
    return html, script.removesuffix("</script>\n")


def part(name: str, handlers: Mapping[str, Handler], **values: Any) -> gr.HTML:
    """The component of static/NAME.html, whose template takes `values`.

    Its HTML is sent in every language, and the browser chooses one (static/page.js). Its script calls a handler as
    `server.NAME(form)`, which is a promise of the answer.
    """
    template, script = split_script(read_static(f"{name}.html"))
    html = {}
    for language in TABLES:
        with in_language(language):
            html[language] = render_text(template, **values)
    return gr.HTML(
        "",
        html_template="${html[miniclip.language]}",
        html=html,
        js_on_load=script or None,
        server_functions=[answering(name, handler) for name, handler in handlers.items()],
        elem_id=name,
        elem_classes="part" if script else None,
        apply_default_css=False,
    )


def answering(name: str, handler: Handler) -> Handler:
    """The handler with its errors as answers. A programming error is logged, and the answer calls it internal."""

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
