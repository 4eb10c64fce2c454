"""The search page. In: an `AppState`. Out: Gradio `Blocks`, and the options to launch them with.

Importing this module loads neither PyTorch nor transformers. Its tabs are the modules in tabs/.

    python -m demo --images DIR --bundle B
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at gradio's import: no request leaves the machine

import json
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from . import detail
from .app_state import AppState
from .i18n import TABLES
from .local_files import local_routes
from .page import STATIC, part, read_static
from .previews import preview_route
from .public_api import add_public_api
from .request_filter import RequestFilter
from .search_request import page_settings
from .tabs import LOCAL_TABS, TABS
from .uploads import MAX_UPLOAD_BYTES

SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
SYSTEM_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
TITLE = "MiniCLIP"
SCRIPTS = ("page.js", "local.js", "filters.js", "browse.js")  # page.js first: the others use it
STYLES = ("style.css", "browse.css")
# titles of tabs are elements of Gradio; all other words are in the HTML and scripts of `part`
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
        part("header", {}, is_public=app_state.is_public)
        with gr.Tabs(selected=next(iter(TABS)), elem_id="tabs"):
            for name, handlers in TABS.items():
                if not (app_state.is_public and name in LOCAL_TABS):
                    with gr.Tab(TRANSLATIONS(f"tab_{name}"), id=name, elem_id=f"{name}-tab"):
                        part(name, handlers(app_state))
        part("detail", detail.handlers(app_state))
        part("viewer", {})
        part("saved", {})
        if app_state.is_local:
            part("selection", {})
        add_public_api(app_state, with_mcp)
    page.queue(max_size=MAX_WAITING)
    return page


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
    script, styles = ("".join(map(read_static, names)) for names in (SCRIPTS, STYLES))
    return {
        "theme": theme(),
        # not `css_paths`: Gradio puts a prefix before every comma of a selector, even inside `:is(...)`
        "head": f"<style>{styles}</style><script>window.miniclip = {settings};{languages}{script}</script>",
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
