"""Allow only a browser on this machine, at the page's own address, to use the files of this machine.

In: a request below `/local/`, which only a local page has (`AppState.is_local`). Out: None, or a refusal. The checks
of the connection, the Host header, the Origin and the login refuse a reverse proxy, another site in the same browser,
and a host name that leads to this machine (DNS rebinding). `/local/open` returns a key that no other site can read, and
every other address must contain it.
"""

import secrets
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse

from .i18n import t
from .loopback import is_loopback
from .request_filter import is_logged_in

FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


class LocalAccess:
    """The checks, and the key of this run of the page."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(24)

    def refusal(self, request: Request, key: str | None) -> JSONResponse | None:
        """The answer to a request that is refused, or None. `key` is the one in the address; None if none is needed."""
        if not is_logged_in(request):
            return refuse(401, t("log_in_first"))
        if not (_is_direct(request) and _is_own_address(request)):
            return refuse(403, t("files_only_at"))
        if key is not None and not secrets.compare_digest(key.encode(), self.key.encode()):
            return refuse(403, t("page_restarted"))
        if request.method == "POST" and request.headers.get("content-type") != "application/json":
            return refuse(415, t("send_json"))  # a form on another site cannot send JSON
        return None


def refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"message": message}, status_code=status, headers={"Cache-Control": "no-store"})


def _is_direct(request: Request) -> bool:
    """Whether the connection comes from this machine. For a forwarded client, Uvicorn sets the port to 0."""
    client = request.client
    is_here = client is not None and client.port != 0 and is_loopback(client.host)
    return is_here and not any(name in request.headers for name in FORWARDED)


def _is_own_address(request: Request) -> bool:
    """Whether the page has an address of this machine, and the page itself sent the request, not another site."""
    host = request.headers.get("host", "")
    if not is_loopback(urlsplit(f"//{host}").hostname or ""):
        return False
    origin = request.headers.get("origin")
    if origin is None:  # browsers omit it only for GET
        return request.method == "GET" and request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    return origin == f"http://{host}"
