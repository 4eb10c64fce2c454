"""The addresses below `/local/`, by which a browser on this machine uses the files of the open gallery.

    POST /local/open                              -> the key in all other addresses
    POST /local/KEY/details|show|plan|archive|run|undo   JSON in, JSON out
    GET  /local/KEY/original/GALLERY/ROW          the original image or video file; `?save` to download it
    GET  /local/KEY/archive/NAME                  a ZIP archive

A request names a file by its row in the index, never by a path. `demo.local_access` checks every request.
"""

import json
import mimetypes
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from miniclip.data.images import opened_image
from miniclip.data.moments import second_of
from miniclip.data.paths import printable
from miniclip.data.photo_details import read_photo_details
from miniclip.data.storage import is_uri
from miniclip.errors import MiniClipError
from miniclip.search.duplicates import is_as_indexed

from .app_state import AppState
from .errors import PageError, sentence
from .file_actions import FileActions
from .form import Form
from .i18n import day_and_time, decimal, t
from .local_access import LocalAccess, refuse
from .page import Handler, answering
from .show_in_folder import has_desktop, show_in_folder
from .zip_stream import zip_stream

MEDIA_TYPES = {
    **{name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")},
    **{"MPO": "image/jpeg", "HEIF": "image/heic", "JXL": "image/jxl"},
}
UNKNOWN_TYPE = "application/octet-stream"
# scripts in a file, such as an SVG, must not run with the page's origin
FILE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, max-age=600",
}


def local_routes(app_state: AppState) -> list[BaseRoute]:
    """The routes above; none if other machines can open the page."""
    if not app_state.is_local:
        return []
    access, actions = LocalAccess(), FileActions(app_state)
    handlers: Mapping[str, Handler] = {
        "details": lambda form: _details(app_state, form),
        "show": lambda form: _show(app_state, form),
        "plan": actions.plan,
        "archive": actions.archive,
        "run": actions.run,
        "undo": actions.undo,
    }

    def checked(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            return access.refusal(request, request.path_params.get("key")) or await answer(request)

        return respond

    async def send_key(request: Request) -> Response:
        return _json({"key": access.key, "canShow": has_desktop()})

    async def act(request: Request) -> Response:
        try:
            form = json.loads(await request.body())
        except ValueError:
            return refuse(400, t("unreadable_request"))
        name = request.path_params["action"]
        if name not in handlers:
            return refuse(404, t("nothing_here"))
        return _json(await run_in_threadpool(answering(name, handlers[name]), form))

    async def original(request: Request) -> Response:
        form = {name: request.path_params[name] for name in ("gallery", "row")}
        try:
            return await run_in_threadpool(_original, app_state, form, "save" in request.query_params)
        except MiniClipError as error:
            return refuse(404, sentence(error))

    async def archive(request: Request) -> Response:
        try:
            paths = actions.archived(request.path_params["name"])
        except PageError as error:
            return refuse(404, sentence(error))
        headers = {"Content-Disposition": 'attachment; filename="images.zip"', "Cache-Control": "no-store"}
        return StreamingResponse(zip_stream(paths), media_type="application/zip", headers=headers)

    return [
        Route("/local/open", checked(send_key), methods=["POST"]),
        Route("/local/{key}/original/{gallery}/{row:int}", checked(original), methods=["GET"]),
        Route("/local/{key}/archive/{name}", checked(archive), methods=["GET"]),
        Route("/local/{key}/{action}", checked(act), methods=["POST"]),
    ]


def _json(value: dict[str, Any]) -> Response:
    return Response(json.dumps(value), media_type="application/json", headers={"Cache-Control": "no-store"})


def _original(app_state: AppState, form: Form, save: bool) -> Response:
    gallery = app_state.search
    row = gallery.requested_row(form)
    name = printable(gallery.index.paths.name(row)) if save else None
    if second_of(gallery.index.paths.text(row)) is not None:
        path = gallery.index.paths.file(row)
        if not is_as_indexed(path, gallery.index.states[row]):  # another file may have its name now
            raise PageError(t("video_changed"))
        return FileResponse(path, media_type=_video_type(path), filename=name, headers=FILE_HEADERS)
    source = gallery.index.source(row)
    with opened_image(source) as image:  # refuse a file that is no longer an image
        media_type = MEDIA_TYPES.get(image.format or "", UNKNOWN_TYPE)
    if isinstance(source, Path):
        return FileResponse(source, media_type=media_type, filename=name, headers=FILE_HEADERS)
    return Response(source, media_type=media_type, headers=FILE_HEADERS)


def _video_type(path: str) -> str:
    found = mimetypes.guess_type(os.path.basename(path))[0] or ""
    return found if found.startswith("video/") else UNKNOWN_TYPE


def _details(app_state: AppState, form: Form) -> dict[str, Any]:
    """A row -> its path and the metadata of its file."""
    gallery = app_state.search
    row = gallery.requested_row(form)
    path = gallery.index.paths.file(row)
    details = read_photo_details(gallery.index.source(row))
    size = int(gallery.index.states[row, 0])
    taken = details.metadata.taken
    facts = {
        t("filter_camera"): details.metadata.camera,
        t("lens"): details.lens,
        t("exposure"): details.exposure,
        t("taken"): day_and_time(taken) if taken else "",
        t("place"): details.place,
        t("size"): f"{decimal(details.width_px)} × {decimal(details.height_px)} px, {_bytes(size)}",
        t("path"): printable(path),
    }
    return {"facts": [[name, value] for name, value in facts.items() if value], "path": printable(path)}


def _bytes(number: int) -> str:
    return f"{decimal(number / 1e6, 1)} MB" if number >= 100_000 else f"{decimal(number / 1e3, 1)} kB"


def _show(app_state: AppState, form: Form) -> dict[str, Any]:
    """A row -> a message; the file manager shows the row's file."""
    gallery = app_state.search
    path = gallery.index.paths.file(gallery.requested_row(form))
    if is_uri(path):
        raise PageError(t("in_object_storage"))
    if not Path(path).exists():
        raise PageError(t("image_gone"))
    if not has_desktop():
        raise PageError(t("no_desktop"))
    show_in_folder(Path(path))
    return {"notice": t("shown_in_folder")}
