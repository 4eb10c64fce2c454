"""Serving as a process: what it loads, what it refuses, and what it gives to whom."""

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from demo.__main__ import share
from demo.gallery import index_folder

REPOSITORY = Path(__file__).parents[2]


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


def demo(*flags: str) -> "subprocess.CompletedProcess[str]":
    return python("-m", "demo", "--no-browser", *flags)


def test_serving_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, demo.app, miniclip.cli, miniclip.search; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'transformers'}))"
    )
    done = python("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_occupied_port_is_one_line_and_exit_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = demo("--index", str(tmp_path / "none"), "--port", str(port))
    assert done.returncode == 2
    assert re.fullmatch(rf"error: port {port} is in use; .*--port N \(make demo PORT=N\)\n", done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--images DIR"),
        (("--images", "x"), "--bundle"),
        (("--index", "no-such-index"), "no index at no-such-index"),
        (("--index", "x", "--auth", "nobody"), "user:password"),
        (("--index", "x", "--port", "70000"), "65535"),
        (("--index", "x", "--images", "y"), "not allowed with"),
        (("--images", "no-such-folder", "--bundle", "no-such-bundle"), "no bundle at no-such-bundle"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_2(flags: tuple[str, ...], words: str) -> None:
    if "--port" not in flags:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            flags = (*flags, "--port", str(probe.getsockname()[1]))
    done = demo(*flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and words in done.stderr


def test_indexes_of_two_folders_or_two_bundles_never_collide(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "Pictures", tmp_path / "b" / "Pictures"
    for folder in (first, second):
        folder.mkdir(parents=True)
    folders = [index_folder(str(images), bundle) for images in (first, second) for bundle in ("1", "2")]
    assert len(set(folders)) == 4
    assert all(re.fullmatch(r"Pictures-[0-9a-f]{8}", folder.name) for folder in folders)
    assert index_folder(str(first / ".." / "Pictures"), "1") == folders[0]
    assert re.fullmatch(r"openmoji-[0-9a-f]{8}", index_folder("openmoji", "1").name)


def test_tunnel_that_cannot_be_had_is_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio import networking

    class Page:
        server_port, share_token = 7860, "token"

    def no_tunnel(*arguments: Any) -> str:
        raise RuntimeError("Could not get share link from Gradio API Server.\nlong advice")

    monkeypatch.setattr(networking, "setup_tunnel", no_tunnel)
    line = share(Page())
    assert line.startswith("no public link: Could not get share link") and "\n" not in line
    assert "http://127.0.0.1:7860" in line
    monkeypatch.setattr(networking, "setup_tunnel", lambda *arguments: "https://example.gradio.live")
    assert "https://example.gradio.live" in share(Page())


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, "", refused.read()


def test_previews_are_by_number_and_without_metadata(page_url: str) -> None:
    config = json.loads(get(f"{page_url}config")[2])
    addresses = re.findall(r"preview/\w+/small/\d+\.webp", json.dumps(config))
    status, kind, webp = get(page_url + addresses[0])
    assert (status, kind, webp[8:12]) == (200, "image/webp", b"WEBP")
    assert b"EXIF" not in webp and b"ICCP" not in webp and b"XMP " not in webp
    folder = addresses[0].rsplit("/", 1)[0]
    for name in ("999.webp", "-1.webp", "..%2f..%2fREADME.md", "%C2%B2", "1" * 30):
        assert get(f"{page_url}{folder}/{name}")[0] == 404, name
    assert get(f"{page_url}preview/0000/small/0.webp")[0] == 404


def test_public_api_is_search_text_and_search_image_and_shows_no_path(page_url: str, picture_folder: Path) -> None:
    client = pytest.importorskip("gradio_client").Client(page_url, verbose=False)
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/search_text", "/search_image"}
    hits = client.predict("a dog", 3, api_name="/search_text")
    assert len(hits) == 3 and hits[0]["score"] >= hits[2]["score"]
    assert str(picture_folder) not in json.dumps(hits)
    assert str(picture_folder) not in get(f"{page_url}config")[2].decode()


def test_api_reads_no_file_that_was_not_uploaded(page_url: str, picture_folder: Path) -> None:
    own = next(path for path in sorted(picture_folder.rglob("*")) if path.suffix.lower() in (".jpg", ".png"))
    body = json.dumps({"data": [{"path": str(own), "meta": {"_type": "gradio.FileData"}}]}).encode()
    headers = {"Content-Type": "application/json"}
    address = f"{page_url}gradio_api/call/search_image"
    with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as answer:
        event = json.load(answer)["event_id"]
    reply = get(f"{address}/{event}")[2]
    assert b"event: error" in reply and b"pictures" not in reply


def test_login_gives_page_and_previews_and_without_it_there_is_neither(
    tiny_bundle: Path, picture_index: Path, demo_process: Any
) -> None:
    flags = ("--index", str(picture_index), "--bundle", str(tiny_bundle), "--auth", "anna:secret")
    with demo_process(*flags) as running:
        assert b"preview/" not in get(running.url)[2]
        assert get(f"{running.url}config")[0] == 401
        assert get(f"{running.url}preview/0000/small/0.webp")[0] == 401
        form = urllib.parse.urlencode({"username": "anna", "password": "secret"}).encode()
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        visitor.open(f"{running.url}login", form, timeout=30).read()
        config = visitor.open(f"{running.url}config", timeout=30).read().decode()
        address = next(iter(re.findall(r"preview/\w+/small/\d+\.webp", config)))
        assert visitor.open(running.url + address, timeout=30).headers.get_content_type() == "image/webp"
        assert get(running.url + address)[0] == 401
