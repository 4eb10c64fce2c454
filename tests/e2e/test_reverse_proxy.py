"""The page behind a real nginx at a sub-path, with a login, in a browser; nginx runs the block of docs/sharing.md."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, DemoProcess

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
nginx = shutil.which("nginx") or "/usr/sbin/nginx"
pytestmark = pytest.mark.skipif(not Path(nginx).exists(), reason="Debian's nginx is not installed")

CONFIG = """
user root;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log;
events {}
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  server {
    listen 127.0.0.1:LISTEN;
    location = /favicon.ico { return 204; }  # the browser asks for the icon of the whole site
    LOCATION
  }
}
"""
DOCUMENT = (REPOSITORY / "docs/sharing.md").read_text(encoding="utf-8")
LOCATION = DOCUMENT.split("```nginx\n")[1].split("```")[0]
HOST = "proxy_set_header Host $http_host;"
FORWARD_HOST = "proxy_set_header X-Forwarded-Host $http_host;"
AS_DOCUMENTED = LOCATION
WITH_PREFIX = LOCATION.replace(":7860/;", ":7860/clip/;")
WITH_FORWARDED_HOST = LOCATION.replace(HOST, FORWARD_HOST)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Proxy:
    """nginx in front of a page; stopped at the end of a `with` block."""

    def __init__(self, folder: Path, page_url: str, location: str) -> None:
        folder.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/clip/"
        location = location.replace(":7860", ":" + page_url.rsplit(":", 1)[1].rstrip("/"))
        values = {"FOLDER": folder, "LISTEN": port, "LOCATION": location}
        text = CONFIG
        for name, value in values.items():
            text = text.replace(name, str(value))
        (folder / "nginx.conf").write_text(text)
        self._command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]

    def __enter__(self) -> "Proxy":
        subprocess.run(self._command, check=True, timeout=30)  # returns when it listens
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run([*self._command, "-s", "quit"], check=True, timeout=30)


@pytest.fixture(scope="module")
def page_below_clip(tiny_bundle: Path, image_index: Path) -> Iterator[str]:
    flags = ("--index", str(image_index), "--bundle", str(tiny_bundle), "--provider", "cpu")
    with DemoProcess(*flags, "--root-path", "/clip", "--auth", "guest:secret") as running:
        yield running.url


def refuse(status: int, route: Any) -> None:
    route.fulfill(status=status, body="")


def log_in(tab: Any) -> None:
    tab.get_by_label("username").fill("guest")
    tab.get_by_label("password").fill("secret")
    with tab.expect_response(lambda answer: answer.url.endswith("/login")) as answer:
        tab.get_by_role("button", name="Login").click()
    assert answer.value.status == 200


@pytest.mark.parametrize(
    "location",
    [AS_DOCUMENTED, WITH_PREFIX, WITH_FORWARDED_HOST],
    ids=["as documented", "prefix kept", "only X-Forwarded-Host"],
)
def test_everything_works_at_a_sub_path_with_a_login(
    open_tab: Any, page_below_clip: str, image_folder: Path, tmp_path: Path, location: str
) -> None:
    with Proxy(tmp_path / "nginx", page_below_clip, location) as proxy:
        tab = open_tab("about:blank")
        asked: list[str] = []
        tab.on("request", lambda sent: asked.append(sent.url))
        tab.goto(proxy.url)
        log_in(tab)
        cards = tab.locator("#results .card")
        expect(cards).to_have_count(12)
        tab.locator("#words").fill("a red circle")
        expect(tab.locator("#results h2")).to_have_text("Best matches for “a red circle”")
        tab.wait_for_function(
            "[...document.querySelectorAll('#results img')].slice(0, 4).every(i => i.naturalWidth > 0)"
        )
        assert tab.url == f"{proxy.url}?q=a+red+circle"
        cards.first.click()
        expect(tab.get_by_role("dialog").get_by_role("heading", level=2)).to_be_visible()
        tab.keyboard.press("Escape")
        tab.locator("#search input[type=file]").set_input_files(next(image_folder.rglob("*.png")))
        expect(tab.locator("#results h2")).to_contain_text("like your image")
        outside = [url for url in asked if not url.startswith((proxy.url, "data:", "blob:"))]
        assert outside == []
        tab.goto("about:blank")


def test_an_upload_refused_by_the_proxy_says_so(
    browser: Any, page_below_clip: str, image_folder: Path, tmp_path: Path
) -> None:
    with Proxy(tmp_path / "nginx", page_below_clip, AS_DOCUMENTED) as proxy:
        tab = browser.new_page()
        tab.goto(proxy.url)
        log_in(tab)
        expect(tab.locator("#results .card")).to_have_count(12)
        image = next(image_folder.rglob("*.png"))
        for status, words in (
            (413, "larger than 20 MB"),
            (401, "Log in again"),
            (404, "does not accept uploads"),
            (502, "The upload failed: status 502"),
        ):
            tab.route("**/gradio_api/upload", partial(refuse, status))
            tab.locator("#search input[type=file]").set_input_files(image)
            expect(tab.locator("#results .message")).to_contain_text(words)
            tab.unroute("**/gradio_api/upload")
        tab.close()
