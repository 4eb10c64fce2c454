"""A shared page with a secret file beside its images, a local server, and a guest who sends any request.

In: the fixture `tiny_bundle`. Out: the fixture `site`.
"""

import http.client
import http.server
import io
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from miniclip.index.indexer import update_index
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.security.shared_demo import SharedDemo
from tests.support.drawing import draw_image

SECRET = "this stays here 7f3a91"
PLACE = "taken at 48.2082 N 16.3738 E"  # in the images' metadata


class Canary(http.server.ThreadingHTTPServer):
    """A local server; every request that reaches it came through the page."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CanaryHandler)
        self.asked: list[str] = []


class CanaryHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(SECRET.encode())

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


def with_place(image: Image.Image) -> bytes:
    """A JPEG with the place where it was taken: in EXIF, in XMP, in a comment, and as GPS tags."""
    exif = Image.Exif()
    exif[0x010E] = PLACE
    exif[0x0132] = "2024:07:01 12:00:00"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 29.5), 3: "E", 4: (16.0, 22.0, 25.7), 29: "2024:07:01"})
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif, xmp=f"<x>{PLACE}</x>".encode(), comment=PLACE.encode())
    return stream.getvalue()


@dataclass
class Site:
    """A shared page, and a guest's cookies."""

    url: str
    login: tuple[str, str]
    folder: Path
    canary: Canary
    cookies: str = ""

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        cookies: str | None = None,
    ) -> tuple[int, bytes]:
        """Send a raw request, because HTTP clients normalise paths."""
        address = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        connection.putrequest(method, "/" + path.replace(" ", "%20"), skip_accept_encoding=True)
        sent = {"Cookie": self.cookies if cookies is None else cookies, "Content-Type": "application/json"}
        if method not in ("GET", "HEAD"):
            sent["Content-Length"] = str(len(content))
        for name, value in {**sent, **(headers or {})}.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(content or None)
            answer = connection.getresponse()
            reply = answer.read()
            self.headers = answer.headers
        finally:
            connection.close()
        return answer.status, reply

    def enter(self, password: str | None = None, **headers: str) -> int:
        form = urllib.parse.urlencode({"username": self.login[0], "password": password or self.login[1]}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        status, _ = self.send("POST", "login", form, headers, cookies="")
        self.cookies = "; ".join(one.split(";")[0] for one in self.headers.get_all("Set-Cookie") or [])
        return status

    def ask(self, part: str, function: str, values: Any) -> tuple[int, bytes]:
        config = json.loads(self.send("GET", "config")[1])
        component = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == part)
        body = {"session_hash": "test", "component_id": component, "fn_name": function, "data": values}
        return self.send("POST", "gradio_api/component_server", body)

    def upload(self, name: str, content: bytes, **headers: str) -> tuple[int, bytes]:
        head = f'--limit\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        headers = {"Content-Type": "multipart/form-data; boundary=limit", **headers}
        return self.send("POST", "gradio_api/upload", head + content + b"\r\n--limit--\r\n", headers)

    def trick(self, text: str) -> str:
        inside = f"http://127.0.0.1:{self.canary.server_port}/inside"
        return text.replace("SECRETFILE", str(self.folder / "secret.png")).replace("CANARY", inside)


@pytest.fixture(scope="module")
def site(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "pictures").mkdir()
    for number, (colour, shape) in enumerate([("red", "circle"), ("blue", "square"), ("green", "triangle")]):
        image = draw_image(colour, shape, (1600, 1200), number)
        (folder / "pictures" / f"{colour}.jpg").write_bytes(with_place(image))
    (folder / "secret.png").write_text(SECRET)
    index = folder / "index"
    update_index(str(folder / "pictures"), OnnxEncoders(Bundle.open(tiny_bundle), "cpu", threads=1), index)
    canary = Canary()
    threading.Thread(target=canary.serve_forever, daemon=True).start()
    with SharedDemo("--index", str(index), "--bundle", str(tiny_bundle), "--provider", "cpu") as running:
        reported = next(line for line in running.lines + running.until("no public link") if line.startswith("login: "))
        user, password = re.fullmatch(r"login: (\S+), password: (\S+)", reported).groups()  # type: ignore[union-attr]
        found = Site(running.url, (user, password), folder, canary)
        assert found.enter() == 200
        yield found
    canary.shutdown()


def harmless(reply: bytes) -> bool:
    return not any(word in reply for word in (SECRET.encode(), b"root:", b"PATH=", PLACE.encode(), b"PRIVATE KEY"))
