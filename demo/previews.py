"""Previews of the index's images, by row number. No request can name a path or an image outside the index.

In: `preview/VERSION/SIZE/ROW.webp`. Out: a WebP without the image's metadata, so that its location stays on the server.
If the page has a login, previews need it, too.
"""

import io
import secrets
from collections.abc import Callable
from functools import lru_cache

from fastapi.routing import APIRoute
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from miniclip.data.images import open_image
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex

from .i18n import t

SIZES_PX = {"small": 320, "large": 1280}  # longest edge; a card is 130 to 230 CSS pixels wide, a large view 700
MISSING = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 320"><rect width="320" height="320" fill="#8883"/>
<text x="160" y="165" text-anchor="middle" font-family="sans-serif" font-size="18" fill="#888">{text}</text>
</svg>"""


class Previews:
    """The images of one index as small WebP files, made on the first request."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        # browsers cache previews for a day: another index on the same port must not show them
        self.version = secrets.token_hex(4)
        self._small = lru_cache(maxsize=4096)(self._draw)  # about 10 KB each
        self._large = lru_cache(maxsize=32)(self._draw)

    def address(self, row: int, size: str = "small") -> str:
        """The preview's address, relative to the page's."""
        return f"preview/{self.version}/{size}/{row}.webp"

    def webp(self, row: int, size: str = "small") -> bytes:
        """One preview; `MiniClipError` if the image is missing or damaged."""
        return (self._large if size == "large" else self._small)(row, SIZES_PX[size])

    def _draw(self, row: int, size_px: int) -> bytes:
        image = open_image(self._index.source(row), min_size_px=size_px)
        image.thumbnail((size_px, size_px), Image.Resampling.BICUBIC, reducing_gap=2.0)
        image.info = {}  # otherwise Pillow copies a colour profile or XMP into the new file
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=82, method=1)
        return stream.getvalue()

    def row_at(self, version: str, name: str) -> int | None:
        """The row of `ROW.webp`; None if the version is another gallery's, or there is no such row."""
        number = name.removesuffix(".webp")
        if version != self.version or not (number.isascii() and number.isdigit()) or len(number) > 9:
            return None
        return int(number) if int(number) < len(self._index) else None


def preview_route(current: Callable[[], Previews]) -> APIRoute:
    """The route of previews. `current` returns the open gallery's previews."""

    async def respond(request: Request, version: str, size: str, name: str) -> Response:
        if not is_logged_in(request):
            return Response("log in first", status_code=401)
        previews = current()
        row = previews.row_at(version, name)
        if row is None or size not in SIZES_PX:
            return Response("no such preview", status_code=404)
        headers = {"Cache-Control": "private, max-age=86400, immutable", "X-Content-Type-Options": "nosniff"}
        try:
            webp = await run_in_threadpool(previews.webp, row, size)
        except MiniClipError:  # the image has gone since it was indexed: show a grey field
            return Response(
                MISSING.format(text=t("image_missing")),
                media_type="image/svg+xml",
                headers={"Cache-Control": "no-store"},
            )
        return Response(webp, media_type="image/webp", headers=headers)

    return APIRoute("/preview/{version}/{size}/{name}", respond, methods=["GET"], include_in_schema=False)


def is_logged_in(request: Request) -> bool:
    """Whether the request has the cookie of Gradio's login. If a later Gradio renames it, all requests are refused."""
    app = request.app
    if app.auth is None and app.auth_dependency is None:
        return True
    tokens = [request.cookies.get(f"access-token{kind}-{app.cookie_id}") for kind in ("", "-unsecure")]
    return any(token is not None and app.tokens.get(token) is not None for token in tokens)
