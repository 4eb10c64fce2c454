"""Serving as a process: its imports, its refusals, and the data that each user gets."""

import json
import re
import resource
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
from miniclip.index.location import index_folder
from miniclip.search.query import DEFAULT_TOP_K
from tests.e2e.conftest import DemoProcess

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
    assert re.fullmatch(rf"error: port {port} is in use; .*choose another with --port N\n", done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--images DIR"),
        (("--images", "x"), "x does not exist"),
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


def test_a_failed_tunnel_is_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio import networking

    class Page:
        server_port, share_token = 7860, "token"

    def no_tunnel(*arguments: Any) -> str:
        raise RuntimeError("Could not get share link from Gradio API Server.\nlong advice")

    monkeypatch.setattr(networking, "setup_tunnel", no_tunnel)
    line = share(Page(), "127.0.0.1")
    assert line.startswith("no public link: Could not get share link") and "\n" not in line
    assert "http://127.0.0.1:7860" in line
    monkeypatch.setattr(networking, "setup_tunnel", lambda *arguments: "https://example.gradio.live")
    assert "https://example.gradio.live" in share(Page(), "127.0.0.1")


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, "", refused.read()


@pytest.fixture(scope="module")
def client(page_url: str) -> Any:
    return pytest.importorskip("gradio_client").Client(page_url, verbose=False)


def test_previews_are_by_number_and_without_metadata(page_url: str, client: Any) -> None:
    address = client.predict("a dog", 1, api_name="/search_text")[0]["preview"]
    assert re.fullmatch(r"preview/\w+/small/\d+\.webp", address)
    status, kind, webp = get(page_url + address)
    assert (status, kind, webp[8:12]) == (200, "image/webp", b"WEBP")
    assert b"EXIF" not in webp and b"ICCP" not in webp and b"XMP " not in webp
    folder = address.rsplit("/", 1)[0]
    for name in ("999.webp", "-1.webp", "..%2f..%2fREADME.md", "%C2%B2", "1" * 30):
        assert get(f"{page_url}{folder}/{name}")[0] == 404, name
    assert get(f"{page_url}preview/0000/small/0.webp")[0] == 404


def test_the_public_api_has_three_functions_and_shows_no_path(page_url: str, client: Any, image_folder: Path) -> None:
    names = {"/search_text", "/search_image", "/classify"}
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == names
    hits = client.predict("a dog", 3, api_name="/search_text")
    assert len(hits) == 3 and hits[0]["score"] >= hits[2]["score"]
    assert len(client.predict("a dog", "many", api_name="/search_text")) == DEFAULT_TOP_K
    assert str(image_folder) not in json.dumps(hits)
    assert str(image_folder) not in get(f"{page_url}config")[2].decode()


def test_snippet_of_the_guide_runs(page_url: str, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio_client")
    guide = (REPOSITORY / "docs/guide.md").read_text(encoding="utf-8")
    code = guide.split("```python\n")[1].split("```")[0]
    assert "gradio_client" in code
    image = next(image_folder.glob("*.png"))
    code = code.replace("http://127.0.0.1:7860", page_url).replace("holiday.jpg", str(image))
    exec(compile(code, "docs/guide.md", "exec"), {})
    said = capsys.readouterr().out
    assert image.name in said  # an image is most similar to itself
    assert "'beach':" in said


def test_the_api_reads_only_uploaded_files(page_url: str, image_folder: Path) -> None:
    own = next(path for path in sorted(image_folder.rglob("*")) if path.suffix.lower() in (".jpg", ".png"))
    body = json.dumps({"data": [{"path": str(own), "meta": {"_type": "gradio.FileData"}}]}).encode()
    headers = {"Content-Type": "application/json"}
    address = f"{page_url}gradio_api/call/search_image"
    with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as answer:
        event = json.load(answer)["event_id"]
    reply = get(f"{address}/{event}")[2]
    assert b"event: error" in reply and b"pictures" not in reply


def test_page_and_previews_need_the_login(tiny_bundle: Path, image_index: Path, demo_process: Any) -> None:
    flags = ("--index", str(image_index), "--bundle", str(tiny_bundle), "--auth", "anna:secret")
    with demo_process(*flags) as running:
        assert get(f"{running.url}config")[0] == 401
        assert get(f"{running.url}preview/0000/small/0.webp")[0] == 401
        form = urllib.parse.urlencode({"username": "anna", "password": "secret"}).encode()
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        visitor.open(f"{running.url}login", form, timeout=30).read()
        config = json.load(visitor.open(f"{running.url}config", timeout=30))
        search = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "search")
        body = {"session_hash": "test", "component_id": search, "fn_name": "search", "data": {"q": "a dog"}}
        request = urllib.request.Request(
            f"{running.url}gradio_api/component_server", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        html = json.load(visitor.open(request, timeout=30))["html"]
        address = re.findall(r"preview/\w+/small/\d+\.webp", html)[0]
        assert visitor.open(running.url + address, timeout=30).headers.get_content_type() == "image/webp"
        assert get(running.url + address)[0] == 401


class Ipv6Demo(DemoProcess):
    """A page that listens at the IPv6 address of this machine."""

    def __init__(self, *flags: str) -> None:
        super().__init__(*flags, "--host", "::1")
        self.url = self.url.replace("127.0.0.1", "[::1]")


def test_page_is_served_at_an_ipv6_address(tiny_bundle: Path, image_index: Path) -> None:
    with Ipv6Demo("--index", str(image_index), "--bundle", str(tiny_bundle), "--provider", "cpu") as running:
        assert get(running.url)[:2] == (200, "text/html")


class OpeningDemo(DemoProcess):
    """`python -m demo` as a user starts it, on a screen and without `--no-browser`."""

    def start(self, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
        command.remove("--no-browser")
        return super().start(command, {**environment, "DISPLAY": ":0"})


def test_page_opens_the_browser_by_itself(
    tiny_bundle: Path, image_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{opened}"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    with OpeningDemo("--index", str(image_index), "--bundle", str(tiny_bundle)) as running:
        assert opened.read_text().strip().rstrip("/") == running.url.rstrip("/")


def test_page_with_an_existing_index_takes_few_seconds_of_the_cores(
    tiny_bundle: Path, image_index: Path, demo_process: Any
) -> None:
    """CPU time from start to stop: elapsed time, as in benchmarks/page_load.py, depends on other work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with demo_process("--index", str(image_index), "--bundle", str(tiny_bundle)) as running:
        assert get(running.url)[0] == 200
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 10.0
