"""Hundreds of requests from a guest to a shared page that must get nothing, and the places of images.

No request may read the secret file beside the index, or make the page contact the local server. The requests are in
tables, so that a new trick is a new line.
"""

import io
import json
import re
import socket
import urllib.parse
from pathlib import Path

import pytest
from PIL import Image

from tests.security.requests import CLOSED, CLOSED_POSTS, DOORS, PATHS
from tests.security.site import PLACE, Site, harmless, with_place
from tests.support.drawing import draw_image

NO_FUNCTIONS = ("__init__", "__class__", "preprocess", "postprocess", "get_config", "constructor", "push_to_hub", "")


@pytest.mark.parametrize("door", DOORS)
def test_addresses_that_take_a_path_are_blocked(site: Site, door: str) -> None:
    for path in PATHS:
        status, reply = site.send("GET", door + site.trick(path))
        assert 400 <= status < 500 and harmless(reply), f"{door}{path}: {status}"
    assert site.canary.asked == []


def test_other_addresses_of_the_server_are_blocked(site: Site) -> None:
    for place in CLOSED:
        assert site.send("GET", place)[0] == 404, place
    for place in CLOSED_POSTS:
        assert site.send("POST", place, {"data": ["a"], "session_hash": "x", "fn_index": 0})[0] == 404, place
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        assert site.send(method, "config")[0] in (404, 405), method
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    assert (
        site.send("GET", "gradio_api/queue/join", headers={**upgrade, "Sec-WebSocket-Key": "a" * 22 + "=="})[0] >= 400
    )


@pytest.mark.parametrize("path", PATHS)
def test_invented_uploads_are_neither_read_nor_fetched(site: Site, path: str) -> None:
    """Like the answer to an upload, but with an invented path or address."""
    path = urllib.parse.unquote(site.trick(path))
    for image in ({"path": path}, {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}, path):
        status, reply = site.ask("search", "search", {"picture": image})
        assert status == 200 and harmless(reply) and b"card" not in reply
        assert json.loads(reply)["message"] == "This image is no longer on the server: choose it again."
    for image in ({"path": path, "meta": {"_type": "gradio.FileData"}}, {"path": path, "url": path}):
        status, reply = site.send("POST", "gradio_api/call/search_image", {"data": [image]})
        if status == 200:
            status, reply = site.send("GET", f"gradio_api/call/search_image/{json.loads(reply)['event_id']}")
            assert b"event: error" in reply
        assert harmless(reply) and b"pictures" not in reply
    assert site.canary.asked == []


@pytest.mark.parametrize("function", NO_FUNCTIONS)
def test_only_functions_of_the_page_answer(site: Site, function: str) -> None:
    assert site.ask("search", function, {})[0] == 404


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/cron.d/evil.png", "..%2f..%2fevil.png", "..\\\\evil.png"])
def test_the_name_of_an_upload_does_not_choose_its_folder(site: Site, name: str) -> None:
    status, reply = site.upload(name, with_place(draw_image("red", "circle")))
    if status == 200:
        (path,) = json.loads(reply)
        assert re.fullmatch(r".*/miniclip-uploads-\w+/[0-9a-f]{64}/[^/]+", path)
    assert not [path for path in (site.folder.parent / "evil.png", Path("/etc/cron.d/evil.png")) if path.exists()]


def test_oversized_requests_are_refused_before_reading(site: Site) -> None:
    much = str(10**12)
    assert site.send("POST", "gradio_api/upload", b"", {"Content-Length": much})[0] == 413
    assert site.send("POST", "gradio_api/component_server", b"{", {"Content-Length": str(3 << 20)})[0] == 413
    assert site.send("POST", "login", b"", {"Content-Length": "9000"}, cookies="")[0] == 413
    assert site.send("POST", "gradio_api/queue/join", b"", {"Content-Length": "-1"})[0] >= 400
    # without a length, bytes are counted
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    connection = socket.create_connection(
        address := (urllib.parse.urlsplit(site.url).hostname, _port(site)), timeout=60
    )
    assert address
    head = f"POST /gradio_api/component_server HTTP/1.1\r\nHost: x\r\nCookie: {site.cookies}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    try:
        for _ in range(17):
            connection.sendall(chunk)
    except OSError:  # the server has already closed the connection
        pass
    assert connection.recv(4096).split(b" ")[1] in (b"400", b"413")  # at the limit, before the end, which never arrives
    connection.close()


def _port(site: Site) -> int:
    return int(urllib.parse.urlsplit(site.url).port or 0)


def test_slow_senders_are_disconnected_and_delay_no_other_user(site: Site) -> None:
    """With incomplete requests on a hundred connections, a guest still gets answers; an incomplete body gets 408."""
    held = [socket.create_connection(("127.0.0.1", _port(site)), timeout=60) for _ in range(100)]
    for number, connection in enumerate(held):
        head = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        connection.sendall(head + (b"Content-Length: 100\r\n\r\nuser" if number < 40 else b"X-A: b"))
    status, reply = site.ask("search", "search", {"q": "a dog"})
    assert status == 200 and b"preview/" in reply
    for number in range(5):  # tries beyond the limit of an address got 429 at once
        assert held[number].recv(4096).split(b" ")[1] in (b"408", b"429")
    for connection in held:
        connection.close()


def test_used_and_invented_sessions_have_no_access(site: Site) -> None:
    old = site.cookies
    name = old.split("=")[0]
    for cookies in ("", f"{name}=guest", f"{name}=", f"{name}={'a' * 22}", "access-token=guest", f"{name}=../../x"):
        for place in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=test", "gradio_api/heartbeat/a"):
            assert site.send("GET", place, cookies=cookies)[0] == 401, (cookies, place)
        body = {"data": ["a dog", 3], "session_hash": "test"}
        for place in ("gradio_api/call/search_text", "gradio_api/queue/join", "gradio_api/upload", "gradio_api/cancel"):
            assert site.send("POST", place, body, cookies=cookies)[0] == 401, (cookies, place)
    assert site.send("GET", "logout", cookies=old)[0] < 400
    assert site.send("GET", "config", cookies=old)[0] == 401
    assert site.enter(**{"X-Forwarded-For": "192.0.2.1"}) == 200
    assert site.send("GET", "config")[0] == 200


def test_password_guessing_is_slowed_down_for_the_guesser_only(site: Site) -> None:
    stranger = Site(site.url, site.login, site.folder, site.canary)
    answers = [stranger.enter(f"guess {number}", **{"X-Forwarded-For": "192.0.2.66"}) for number in range(12)]
    assert answers[:5] == [400] * 5 and answers[5:] == [429] * 7
    assert 1 <= int(stranger.headers["Retry-After"]) <= 31
    assert (
        stranger.enter(**{"X-Forwarded-For": "192.0.2.66"}) == 429
    )  # a correct guess gets the same answer as a wrong one
    assert stranger.enter(**{"X-Forwarded-For": "192.0.2.7"}) == 200
    assert site.send("GET", "config")[0] == 200


def test_the_place_of_an_image_is_never_sent(site: Site) -> None:
    original = (site.folder / "pictures/red.jpg").read_bytes()
    assert original.count(PLACE.encode()) == 3 and 0x8825 in Image.open(io.BytesIO(original)).getexif()
    status, reply = site.upload("holiday.jpg", original)
    (path,) = json.loads(reply)
    replies = [reply]
    for values in ({"q": "a dog"}, {"picture": {"path": path}}, {"q": "a dog", "picture": {"path": path}}):
        replies.append(site.ask("search", "search", values)[1])
    (gallery,) = set(re.findall(r"preview/(\w+)/", replies[1].decode()))
    replies += [site.ask("detail", "detail", {"row": row, "gallery": gallery, "q": "a dog"})[1] for row in range(3)]
    replies.append(site.ask("describe", "describe", {"picture": {"path": path}})[1])
    addresses = set(re.findall(rb"preview/\w+/\w+/\d+\.webp", b"".join(replies)))
    assert {address.split(b"/")[2] for address in addresses} == {b"small", b"large"}
    for address in addresses:
        status, webp = site.send("GET", address.decode())
        image = Image.open(io.BytesIO(webp))
        assert status == 200 and not image.getexif() and set(image.info) <= {"loop", "background", "duration"}
        replies.append(webp)
    assert not [reply for reply in replies if PLACE.encode() in reply or b"Exif" in reply or b"48.2082" in reply]
    for door in ("gradio_api/file=", "file=", "gradio_api/file/"):  # the upload itself is not served
        assert site.send("GET", door + path)[0] == 404
