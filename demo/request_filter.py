"""The filter before Gradio's server: it decides which requests are allowed, and limits their size and duration.

In: every request. Out: the requests that the page needs; all others are refused. Gradio has more endpoints than the
page uses: `file=` serves uploads unchanged, with their GPS data, and fetches URLs; others are `proxy=`, `stream`,
`monitoring` and `custom_component`. All of them are blocked, so no request can name a path of a file.
"""

import asyncio
import base64
import binascii
import re
import secrets
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .i18n import decimal, language_of, set_language, t
from .login_limit import LoginLimit
from .loopback import is_loopback
from .uploads import MAX_UPLOAD_BYTES

NAME = r"[\w@+-][\w.@+-]*"  # of a file or a folder: no leading dot, so neither `..` nor a hidden one
# the login page needs these
WITHOUT_LOGIN = re.compile(
    rf"/|/(assets|static)(/{NAME})+|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?"
    r"|/login/?|/logout|/gradio_api/(login_check/?|token/?|user/?|app_id/?|startup-events|theme\.css)"
)
WITH_LOGIN = re.compile(
    r"/preview/\w+/\w+/\d{1,9}\.webp|/config/?|/gradio_api/(info/?|upload|upload_progress|component_server/?|cancel|reset/?|heartbeat/[\w-]+"
    r"|queue/(join|data|status)|call/(search_text|search_image|classify)(/[\w-]+)?)"
)
MCP = re.compile(r"/gradio_api/(mcp(/(http/?)?)?|run/search_text)")
# demo.local_access checks who may use these
LOCAL = re.compile(
    r"/local/(open|[\w-]{32}/(details|show|plan|archive|run|undo|original/[0-9a-f]{8}/\d{1,9}|archive/[0-9a-f]{16}))"
)
BODY_BYTES, BODY_S = 1 << 20, 30.0
LIMITS = {  # bytes and seconds of a request's body
    "/login": (4096, 10.0),
    "/gradio_api/upload": (MAX_UPLOAD_BYTES + (64 << 10), 120.0),  # with the form around the image
}
MCP_BYTES = 2 * MAX_UPLOAD_BYTES  # an image as base64
MAX_UPLOADS_BYTES = 1 << 30  # of all uploads that are kept at a time
MAX_OPEN = {False: 64, True: 512}  # requests at a time without and with a login: visitors cannot block users
FORWARDED = (b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")


class RequestFilter:
    """ASGI middleware; one for a page. `with_mcp` allows requests of MCP clients, `is_local` those for files."""

    def __init__(self, app: ASGIApp, with_mcp: bool = False, is_local: bool = False) -> None:
        self.app = app
        self._with_mcp = with_mcp
        self._is_local = is_local
        self._logins = LoginLimit()
        self._open = {False: 0, True: 0}  # requests, by login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page has no web socket
            return await send({"type": "websocket.close", "code": 1008})
        scope["headers"] = trusted_headers(scope)
        set_language(language_of(Headers(scope=scope).get("accept-language", "")))
        path = path_below_root(scope)
        is_mcp = self._with_mcp and MCP.fullmatch(path) is not None
        has_login = is_logged_in(Request(scope))
        if is_mcp and not has_login:
            refusal = self._check_basic_login(Request(scope))
            if refusal is not None:
                return await refusal(scope, receive, send)
            has_login = True
        max_bytes, within_s = (MCP_BYTES, BODY_S) if is_mcp else LIMITS.get(path.rstrip("/"), (BODY_BYTES, BODY_S))
        refusal = self._refusal(scope, path, has_login, is_mcp, max_bytes)
        if refusal is not None:
            return await refusal(scope, receive, send)
        self._open[has_login] += 1
        try:
            limited = _limited(receive, max_bytes, within_s)
            if path.rstrip("/") == "/login" and scope["method"] == "POST":
                await self._log_in(scope, limited, send)
            else:
                await self.app(scope, limited, send)
        finally:
            self._open[has_login] -= 1

    def _refusal(self, scope: Scope, path: str, has_login: bool, is_mcp: bool, max_bytes: int) -> JSONResponse | None:
        if not WITHOUT_LOGIN.fullmatch(path) and not is_mcp:
            if not (WITH_LOGIN.fullmatch(path) or (self._is_local and LOCAL.fullmatch(path))):
                return _refuse(404, t("nothing_here"))
            if not has_login:
                return _refuse(401, t("log_in_first"))
        if self._open[has_login] >= MAX_OPEN[has_login]:
            return _refuse(503, t("too_many_requests"), retry_s=1)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        # a slightly larger body is refused while it is read: a client that is still sending would miss this answer
        if not length.isdigit() or len(length) > 12 or int(length) > 2 * max_bytes:
            return _refuse(413, t("request_too_large", number=max_bytes))
        if path == "/gradio_api/upload" and _kept_bytes() > MAX_UPLOADS_BYTES:
            return _refuse(503, t("too_many_uploads"), retry_s=3600)
        return None

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = _address(scope)
        wait_s = self._logins.take(address)
        if wait_s:
            return await _too_many_logins(wait_s)(scope, receive, send)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self._logins.succeeded(address)
            await send(message)

        await self.app(scope, receive, watched)

    def _check_basic_login(self, request: Request) -> JSONResponse | None:
        """MCP clients have no login form: they send the login as HTTP Basic authentication."""
        address = _address(request.scope)
        wait_s = self._logins.take(address)
        if wait_s:
            return _too_many_logins(wait_s)
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user, password = "", ""
        logins = request.app.auth or {}
        if kind.lower() == "basic" and _equal(logins.get(user, ""), password):
            self._logins.succeeded(address)
            return None
        return _refuse(401, t("log_in_basic"))


def is_logged_in(request: Request) -> bool:
    """Whether the request has the cookie of Gradio's login. If a later Gradio renames it, all requests are refused."""
    app = request.app
    if app.auth is None and app.auth_dependency is None:
        return True
    tokens = [request.cookies.get(f"access-token{kind}-{app.cookie_id}") for kind in ("", "-unsecure")]
    return any(token is not None and app.tokens.get(token) is not None for token in tokens)


def path_below_root(scope: Scope) -> str:
    """The path without the `--root-path` prefix, which a reverse proxy may or may not have removed."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path.removeprefix(root) or "/"
    return path


def trusted_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers, without those about forwarding if the client is not a trusted proxy.

    Uvicorn trusts 127.0.0.1 or FORWARDED_ALLOW_IPS as proxies. For these it replaces the client's address by the
    forwarded one, with port 0. A direct connection never has port 0.
    """
    host, port = scope.get("client") or ("", 0)
    if port == 0 or is_loopback(host):
        return list(scope["headers"])
    return [(name, value) for name, value in scope["headers"] if name not in FORWARDED]


def _limited(receive: Receive, max_bytes: int, within_s: float) -> Receive:
    """Limit the size and the duration of the request's body. Messages after the body pass unchanged."""
    received, is_complete = 0, False
    deadline = asyncio.get_running_loop().time() + within_s

    async def limited() -> Message:
        nonlocal received, is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, t("request_too_slow")) from None
        received += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if received > max_bytes:
            raise HTTPException(413, t("request_too_large", number=max_bytes))
        return message

    return limited


def _kept_bytes() -> int:
    """The size of the upload folder in bytes. A file that is deleted meanwhile does not count."""
    total = 0
    for path in Path(get_upload_folder()).rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def _equal(expected: str, password: str) -> bool:
    return bool(expected) and secrets.compare_digest(expected.encode(), password.encode())


def _address(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def _too_many_logins(wait_s: float) -> JSONResponse:
    return _refuse(429, t("too_many_logins", seconds=decimal(wait_s)), retry_s=int(wait_s) + 1)


def _refuse(status: int, reason: str, retry_s: int | None = None) -> JSONResponse:
    headers: dict[str, Any] = {} if retry_s is None else {"Retry-After": str(retry_s)}
    return JSONResponse({"detail": reason}, status_code=status, headers=headers)
