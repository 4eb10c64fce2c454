"""The search page. In: an `AppState`. Out: Gradio `Blocks`, and the options to launch them with.

Only onnxruntime runs behind `demo.app_state`: importing this module loads neither torch nor transformers. A tab is
three files and a line of `build_page`: tabs/NAME.py answers requests, static/NAME.html and static/NAME.js make them.
    python -m demo --images DIR --bundle B
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at gradio's import: no request leaves the machine

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from .app_state import AppState
from .i18n import TABLES
from .local_files import local_routes
from .page import STATIC, Handler, part, read_static, skeleton
from .previews import preview_route
from .public_api import add_public_api
from .request_filter import RequestFilter
from .search_request import page_settings
from .tabs import compare_models, describe, detail, image_map, library, search
from .uploads import MAX_UPLOAD_BYTES

SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
SYSTEM_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
TITLE = "MiniCLIP"
# only the titles of the tabs are Gradio's own elements; all others are HTML of `skeleton` and scripts
TRANSLATIONS = gr.I18n(
    **{code: {key: text for key, text in table.items() if key.startswith("tab_")} for code, table in TABLES.items()}
)
MAX_WAITING = 32  # calls in the queue; further ones are refused
PUBLIC_THREADS, LOCAL_THREADS = 8, 40
CLEAN_EVERY_S, KEEP_UPLOADS_S = 300, 3600


def build_page(app_state: AppState, with_mcp: bool = False) -> gr.Blocks:
    """The page, with the public API `search_text`, `search_image` and `classify`."""
    page = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEEP_UPLOADS_S))
    with page:
        skeleton("header", is_public=app_state.is_public)
        with gr.Tabs(selected="search", elem_id="tabs"):
            _tab("search", search.handlers(app_state), scripts=("filters", "browse", "search"))
            _tab("describe", describe.handlers(app_state))
            _tab("map", image_map.handlers(app_state))
            if not app_state.is_public:
                _tab("library", library.handlers(app_state))
                _tab("compare", compare_models.handlers(app_state))
        part("detail", detail.handlers(app_state))
        part("viewer", {})
        part("saved", {})
        if app_state.is_local:
            part("selection", {})
        add_public_api(app_state, with_mcp)
    page.queue(max_size=MAX_WAITING)
    return page


def _tab(name: str, handlers: Mapping[str, Handler], scripts: Sequence[str] = ()) -> None:
    with gr.Tab(TRANSLATIONS(f"tab_{name}"), id=name, elem_id=f"{name}-tab"):
        part(name, handlers, scripts)


def theme() -> gr.themes.Base:
    """Colours and fonts; system fonts only, because others would be downloaded."""
    base = gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", radius_size="lg", font=SYSTEM_FONTS, font_mono=SYSTEM_MONO
    )
    # Gradio's own greys and teals have less contrast than 4.5 to 1 on white
    return base.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_secondary_text_color="*neutral_800",
        input_background_fill="white",
    )


def launch_options(app_state: AppState, with_mcp: bool = False) -> dict[str, Any]:
    """Options of `Blocks.launch` that belong to the page; the command adds port, login and browser."""
    page = {"maxUploadMB": MAX_UPLOAD_BYTES >> 20, "isLocal": app_state.is_local}
    settings = json.dumps({**page_settings(), **page})
    languages = f"window.miniclip.languages = {json.dumps(TABLES)};"
    script = languages + read_static("page.js") + read_static("local.js")
    styles = read_static("style.css") + read_static("browse.css")
    return {
        "theme": theme(),
        # not `css_paths`: Gradio puts a prefix before every comma of a selector, even inside `:is(...)`
        "head": f"<style>{styles}</style><script>window.miniclip = {settings};{script}</script>",
        "i18n": TRANSLATIONS,
        "favicon_path": STATIC / "icon.svg",
        "pwa": True,
        "footer_links": [],
        "max_file_size": MAX_UPLOAD_BYTES,
        "max_threads": PUBLIC_THREADS if app_state.is_public else LOCAL_THREADS,
        "app_kwargs": {
            "routes": [preview_route(lambda: app_state.search.previews), *local_routes(app_state)],
            "middleware": [Middleware(RequestFilter, with_mcp=with_mcp, is_local=app_state.is_local)],
        },
        "mcp_server": with_mcp,
        "run_history": False,  # it would keep queries in the browser
        "ssr_mode": False,
        "quiet": True,
    }
