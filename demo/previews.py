"""Previews of the index's images, by row number. No request can name a path or an image outside the index.

In: `preview/VERSION/SIZE/ROW.webp`. Out: a WebP without the image's metadata, so that its location stays on the server.
request_filter.py asks for the page's login.
"""

import io
import secrets
from collections.abc import Callable
from functools import lru_cache

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
        self._index, self.count = index, len(index)
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


def preview_route(current: Callable[[], Previews]) -> Route:
    """The route of previews. `current` returns the open gallery's previews."""

    async def respond(request: Request) -> Response:
        previews = current()
        version, size, row = (request.path_params[name] for name in ("version", "size", "row"))
        if version != previews.version or size not in SIZES_PX or row >= previews.count:
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

    return Route("/preview/{version}/{size}/{row:int}.webp", respond, methods=["GET"])
