"""Images of web pages: only public addresses are fetched."""

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniclip.data import web_image
from miniclip.errors import MiniClipError


class Site(http.server.BaseHTTPRequestHandler):
    """Answers each path with the response that the path names."""

    image = b""
    stopped = threading.Event()

    def do_GET(self) -> None:
        if self.path in ("/slow-header", "/slow-content"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X: " if self.path == "/slow-header" else b"\r\n"))
            with contextlib.suppress(OSError):
                while not self.stopped.wait(0.05):
                    self.wfile.write(b"x")
            return
        if self.path == "/there":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/inner")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/image.png" else 404)
        self.end_headers()
        self.wfile.write(self.image)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def site(image_folder: Path) -> Iterator[str]:
    Site.image = sorted(image_folder.glob("*.png"))[0].read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Site.stopped.clear()
        yield f"http://127.0.0.1:{server.server_port}"
        Site.stopped.set()
        server.shutdown()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.169.254", "192.168.0.1", "[::ffff:10.0.0.1]", "0"]
)
def test_local_addresses_are_never_fetched(host: str) -> None:
    with pytest.raises(MiniClipError, match="is an inner address"):
        web_image.fetch_image(f"http://{host}/image.png")


def test_an_image_is_fetched_and_a_redirect_is_checked_again(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(site.rpartition(":")[2])
    check = web_image._public_address

    def only_this_server_is_public(host: str, asked: int) -> tuple[str, int]:
        return (host, asked) if asked == port else check(host, asked)

    monkeypatch.setattr(web_image, "_public_address", only_this_server_is_public)
    assert web_image.fetch_image(f"{site}/image.png") == Site.image
    with pytest.raises(MiniClipError, match="is an inner address"):
        web_image.fetch_image(f"{site}/there")
    with pytest.raises(MiniClipError, match="HTTP status 404"):
        web_image.fetch_image(f"{site}/none")
    monkeypatch.setattr(web_image, "MAX_BYTES", 10)
    with pytest.raises(MiniClipError, match="larger than"):
        web_image.fetch_image(f"{site}/image.png")


@pytest.mark.parametrize("path", ["slow-header", "slow-content"])
def test_a_slow_server_is_left_at_the_deadline(site: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends a byte before each timeout of the socket."""
    monkeypatch.setattr(web_image, "_public_address", lambda host, port: (host, port))
    monkeypatch.setattr(web_image, "MAX_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(MiniClipError, match=r"took longer than 0\.3 seconds"):
        web_image.fetch_image(f"{site}/{path}")
    assert time.monotonic() - started < 5


def test_a_name_of_a_local_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **flags: entries)
    with pytest.raises(MiniClipError, match=r"example\.org is an inner address"):
        web_image.fetch_image("http://example.org/a.png")
