"""A public page: no data without a login; with it, previews by number and no other files of the machine."""

import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, DemoProcess, image_index  # noqa: F401
from tests.security.shared_demo import SharedDemo

# common attempts to read a forbidden file
TRICKS = (
    "../README.md",
    "..%2f..%2fREADME.md",
    "%2e%2e/%2e%2e/etc/passwd",
    "....//....//etc/passwd",
    "..\\..\\README.md",
    "..%5c..%5cREADME.md",
    "%252e%252e%252fetc%252fpasswd",
    "..%c0%af..%c0%afetc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "file:///etc/passwd",
    "0.webp%00.png",
    "0.webp/../../../../etc/passwd",
    "~/.ssh/id_rsa",
)
DOORS = (
    "preview/{version}/small/",
    "preview/{version}/",
    "preview/",
    "gradio_api/file=",
    "file=",
    "static/",
    "assets/",
)


@pytest.fixture(scope="module")
def shared(tiny_bundle: Path, image_index: Path) -> Iterator[tuple[str, list[str]]]:  # noqa: F811
    flags = ("--index", str(image_index), "--bundle", str(tiny_bundle), "--provider", "cpu")
    with SharedDemo(*flags) as running:
        yield running.url, running.lines + running.until("no public link")


@pytest.fixture(scope="module")
def guest(shared: tuple[str, list[str]]) -> urllib.request.OpenerDirector:
    """A visitor with the printed login."""
    url, lines = shared
    reported = next(line for line in lines if line.startswith("login: "))
    user, password = re.fullmatch(r"login: (\S+), password: (\S+)", reported).groups()  # type: ignore[union-attr]
    visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    form = urllib.parse.urlencode({"username": user, "password": password}).encode()
    visitor.open(f"{url}login", form, timeout=30).read()
    return visitor


def status(opener: Any, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body else {})
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def call(opener: Any, url: str, config: dict[str, Any], part: str, function: str, values: Any) -> tuple[int, bytes]:
    """Call a function of the page as its scripts do."""
    component = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == part)
    body = {"session_hash": "test", "component_id": component, "fn_name": function, "data": values}
    return status(opener, f"{url}gradio_api/component_server", json.dumps(body).encode())


@pytest.fixture(scope="module")
def config(shared: tuple[str, list[str]], guest: Any) -> dict[str, Any]:
    return json.loads(status(guest, f"{shared[0]}config")[1])


def test_a_failed_tunnel_is_one_line_and_the_page_stays(shared: tuple[str, list[str]], guest: Any) -> None:
    url, lines = shared
    assert [line for line in lines if "public link" in line] == [
        f"no public link: Could not get share link from Gradio API Server; the page stays at {url.rstrip('/')}"
    ]
    assert status(guest, f"{url}config")[0] == 200


def test_without_login_there_is_no_data(shared: tuple[str, list[str]], config: dict[str, Any]) -> None:
    url, stranger = shared[0], urllib.request.build_opener()
    for place in ("config", "gradio_api/info", "preview/0000/small/0.webp", "gradio_api/queue/data?session_hash=x"):
        assert status(stranger, url + place)[0] == 401, place
    for part, function in (("search", "search"), ("search", "about"), ("map", "points"), ("detail", "detail")):
        code, reply = call(stranger, url, config, part, function, {"q": "a dog", "row": 0})
        assert code == 401 and b"preview" not in reply
    body = json.dumps({"data": ["a dog", 3]}).encode()
    assert status(stranger, f"{url}gradio_api/call/search_text", body)[0] == 401
    assert status(stranger, f"{url}gradio_api/upload", b"{}")[0] == 401


@pytest.mark.parametrize("trick", TRICKS)
def test_path_tricks_get_nothing(shared: tuple[str, list[str]], guest: Any, config: dict[str, Any], trick: str) -> None:
    url = shared[0]
    address = urllib.parse.urlsplit(url)
    jar = next(one for one in guest.handlers if isinstance(one, urllib.request.HTTPCookieProcessor)).cookiejar
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)
    version = preview_of(guest, url, config).split("/")[1]
    for door in DOORS:
        # a raw connection, because urllib would normalise the path
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection.putrequest("GET", f"/{door.format(version=version)}{trick}".replace("\\", "%5c"))
        connection.putheader("Cookie", cookies)
        connection.endheaders()
        answer = connection.getresponse()
        reply = answer.read()
        assert answer.status in (403, 404), f"{door}{trick}: {answer.status}"
        assert b"root:" not in reply and b"# MiniCLIP" not in reply


def preview_of(guest: Any, url: str, config: dict[str, Any]) -> str:
    reply = json.loads(call(guest, url, config, "search", "search", {"q": "a dog"})[1])
    return str(re.findall(r"preview/\w+/small/\d+\.webp", reply["html"])[0])


def test_a_shared_page_offers_nothing_that_reads_a_folder(config: dict[str, Any]) -> None:
    parts = {one["props"].get("elem_id") for one in config["components"]}
    assert {"search", "describe", "map", "detail", "viewer"} <= parts
    assert not {"library", "compare", "selection"} & parts


def test_no_path_and_no_metadata_reach_a_guest(
    shared: tuple[str, list[str]], guest: Any, config: dict[str, Any], image_folder: Path
) -> None:
    url = shared[0]
    texts = [json.dumps(config)]
    gallery = preview_of(guest, url, config).split("/")[1]
    for part, function, values in (
        ("search", "about", {}),
        ("search", "search", {"q": "a dog"}),
        ("detail", "detail", {"row": 0, "gallery": gallery, "q": "a dog"}),
        ("describe", "suggestions", {}),
        ("map", "points", {}),
    ):
        code, reply = call(guest, url, config, part, function, values)
        assert code == 200 and "message" not in json.loads(reply)
        texts.append(reply.decode())
    assert not [text for text in texts if str(image_folder.parent) in text or str(REPOSITORY) in text]
    webp = status(guest, url + preview_of(guest, url, config))[1]
    assert webp[8:12] == b"WEBP" and b"EXIF" not in webp and b"XMP " not in webp and b"ICCP" not in webp


def test_crafted_requests_read_no_file(
    shared: tuple[str, list[str]], guest: Any, config: dict[str, Any], image_folder: Path
) -> None:
    own = str(next(image_folder.glob("*.png")))
    gallery = preview_of(guest, shared[0], config).split("/")[1]
    for part, function, values in (
        ("search", "search", {"picture": own}),
        ("search", "search", {"picture": {"path": own}}),
        ("describe", "describe", {"picture": own}),
        ("describe", "label", {"picture": "/etc/passwd", "labels": "a, b"}),
        ("search", "search", {"q": "a", "folder": "../.."}),
        ("detail", "detail", {"gallery": gallery, "row": "../../etc/passwd"}),
        ("detail", "detail", {"gallery": gallery, "row": 10**9}),
        ("detail", "detail", {"row": 0}),
        ("detail", "why", {"gallery": gallery, "row": -1, "q": "a"}),
        ("describe", "describe", {"gallery": "../..", "row": 0}),
        ("search", "search", "no object"),
        ("map", "shades", None),
    ):
        code, reply = call(guest, url := shared[0], config, part, function, values)
        answer = json.loads(reply)
        reported = answer.get("message") or answer.get("html", "")
        assert code == 200 and "card" not in reported and "preview" not in reported, (url, function, values)
    assert call(guest, shared[0], config, "search", "__init__", {})[0] == 404


def test_uploads_are_limited(shared: tuple[str, list[str]], guest: Any) -> None:
    boundary = "limit"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="big.png"\r\n\r\n'.encode()
    body = head + bytes(21 << 20) + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        guest.open(urllib.request.Request(f"{shared[0]}gradio_api/upload", body, headers), timeout=60)
    assert refused.value.code == 413
