"""The gate before Gradio's server: what may be asked for, by whom, how much, for how long.

In: every request. Out: those that the page needs, handed on; any other ends here. Gradio has more doors than this page:
`file=` serves uploads as they came, with the place they were taken at, and fetches addresses; `proxy=`, `stream`,
`monitoring` and `custom_component` are there as well. None of them is opened, so none that takes a path is left.
"""

import asyncio
import re
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .login_limit import LoginLimit
from .previews import is_logged_in
from .uploads import MAX_UPLOAD_BYTES

NAME = r"[\w@+-][\w.@+-]*"  # of a file or a folder: no dot in front, so neither `..` nor a hidden one
# what a login page is made of; a preview asks for the login itself
FOR_STRANGERS = re.compile(
    rf"/|/(assets|static)(/{NAME})+|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?"
    r"|/login/?|/logout|/preview/.*|/gradio_api/(login_check/?|token/?|user/?|app_id/?|startup-events|theme\.css)"
)
FOR_GUESTS = re.compile(
    r"/config/?|/gradio_api/(info/?|upload|upload_progress|component_server/?|cancel|reset/?|heartbeat/[\w-]+"
    r"|queue/(join|data|status)|call/(search_text|search_image|classify)(/[\w-]+)?)"
)
BODY_BYTES, BODY_S = 1 << 20, 30.0
LIMITS = {  # bytes and seconds that a request's body may take
    "/login": (4096, 10.0),
    "/gradio_api/upload": (MAX_UPLOAD_BYTES + (64 << 10), 120.0),  # with the form around the image
}
UPLOADS_BYTES = 1 << 30  # of all that are kept at a time
STRANGERS, GUESTS = 64, 512  # requests open at a time: strangers cannot take the places of who is logged in


class RequestFilter:
    """ASGI middleware; one for a page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._logins = LoginLimit()
        self._open = {False: 0, True: 0}  # requests, by whether they are logged in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page has no web socket
            return await send({"type": "websocket.close", "code": 1008})
        request = Request(scope)
        is_guest = is_logged_in(request)
        refusal = self._refusal(scope, is_guest)
        if refusal is not None:
            return await refusal(scope, receive, send)
        self._open[is_guest] += 1
        try:
            most, within_s = LIMITS.get(scope["path"].rstrip("/"), (BODY_BYTES, BODY_S))
            await self._hand_on(request, _limited(receive, most, within_s), send)
        finally:
            self._open[is_guest] -= 1

    def _refusal(self, scope: Scope, is_guest: bool) -> JSONResponse | None:
        path = scope["path"]
        if not FOR_STRANGERS.fullmatch(path):
            if not FOR_GUESTS.fullmatch(path):
                return _told(404, "There is nothing here.")
            if not is_guest:
                return _told(401, "Log in first.")
        if self._open[is_guest] >= (GUESTS if is_guest else STRANGERS):
            return _told(503, "Too many requests at a time: try again in a moment.", retry_s=1)
        most, _ = LIMITS.get(path.rstrip("/"), (BODY_BYTES, BODY_S))
        length = dict(scope["headers"]).get(b"content-length", b"0")
        # a little too much is read up to the limit: whoever is still sending would not see the answer
        if not length.isdigit() or len(length) > 12 or int(length) > 2 * most:
            return _told(413, f"That is more than {most:,} bytes.")
        if path == "/gradio_api/upload" and _kept_bytes() > UPLOADS_BYTES:
            return _told(503, "Too many images are kept here: try again in an hour.", retry_s=3600)
        return None

    async def _hand_on(self, request: Request, receive: Receive, send: Send) -> None:
        if request.url.path.rstrip("/") != "/login" or request.method != "POST":
            return await self.app(request.scope, receive, send)
        address = request.client.host if request.client else ""
        wait_s = self._logins.take(address)
        if wait_s:
            told = f"Too many wrong logins: try again in {wait_s:.0f} seconds."
            return await _told(429, told, retry_s=int(wait_s) + 1)(request.scope, receive, send)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self._logins.was_right(address)
            await send(message)

        await self.app(request.scope, receive, watched)


def _limited(receive: Receive, most: int, within_s: float) -> Receive:
    """The body, until it is too large or too slow. What comes after it, that the other end has gone, has no limit."""
    taken, is_whole = 0, False
    deadline = asyncio.get_running_loop().time() + within_s

    async def limited() -> Message:
        nonlocal taken, is_whole
        if is_whole:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "The request took too long.") from None
        taken += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if taken > most:
            raise HTTPException(413, f"That is more than {most:,} bytes.")
        return message

    return limited


def _kept_bytes() -> int:
    """What the folder of uploads holds; files that go meanwhile do not count."""
    total = 0
    for path in Path(get_upload_folder()).rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def _told(status: int, told: str, retry_s: int | None = None) -> JSONResponse:
    headers: dict[str, Any] = {} if retry_s is None else {"Retry-After": str(retry_s)}
    return JSONResponse({"detail": told}, status_code=status, headers=headers)
