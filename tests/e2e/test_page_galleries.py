"""Difficult galleries: names that are not UTF-8, a gallery that changed meanwhile, bundles of the same name."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.__main__ import bypass_proxies
from demo.app_state import AppState
from demo.tabs.compare import choices
from demo.tabs.library import handlers
from miniclip.index.image_index import ImageIndex
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.searcher import Searcher
from tests.e2e.conftest import DemoProcess
from tests.support.drawing import COLOURS, SHAPES, draw_image

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

CHANGED = re.compile("Another gallery has been opened since this page was loaded")
PLACE = os.fsdecode(b"d\xe9j\xe0")


@pytest.fixture(scope="module")
def odd_url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page whose folder, folders and files have names that are not UTF-8."""
    folder = tmp_path_factory.mktemp("odd") / os.fsdecode(b"fotos-\xe9")
    (folder / PLACE).mkdir(parents=True)
    draw_image("red", "circle").save(folder / PLACE / os.fsdecode(b"caf\xe9.png"))
    draw_image("blue", "square").save(folder / "plain.png")
    (folder / os.fsdecode(b"broken-\xe9.jpg")).write_text("no image")
    with DemoProcess("--images", str(folder), "--bundle", str(tiny_bundle), "--provider", "cpu") as running:
        yield running.url


def test_names_that_are_not_utf8_are_shown(open_tab: Any, odd_url: str) -> None:
    tab = open_tab(f"{odd_url}?q=a+red+circle")
    titles = tab.locator("#results .card .title")
    expect(titles).to_have_count(2)
    assert sorted(titles.all_text_contents()) == [r"caf\xe9.png", "plain.png"]
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download the results as JSON").click()
    results = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["results"]
    assert {one["picture"] for one in results} == {r"d\xe9j\xe0/caf\xe9.png", "plain.png"}
    tab.get_by_role("button", name="Filters", exact=True).click()
    tab.get_by_label("In folder").select_option(label=r"d\xe9j\xe0")
    expect(titles).to_have_count(1)
    titles.click()
    dialog = tab.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_have_text(r"caf\xe9.png")
    expect(dialog.locator("dl")).to_contain_text(r"fotos-\xe9/d\xe9j\xe0/caf\xe9.png")
    dialog.get_by_role("button", name="Describe it").click()
    expect(tab.locator(".labelled .bars li")).to_have_count(7)
    expect(tab.locator(r'.picks [title="caf\\xe9.png"]')).to_be_visible()
    tab.get_by_role("tab", name="Map").click()
    tab.get_by_label("Colour by").select_option("folder")
    expect(tab.locator("#map .legend")).to_contain_text(r"d\xe9j\xe0")
    tab.get_by_role("tab", name="Library").click()
    expect(tab.locator(".facts-of-index")).to_contain_text(r"fotos-\xe9")
    tab.get_by_text("1 file was skipped").click()
    expect(tab.locator(".facts-of-index li")).to_contain_text(r"broken-\xe9.jpg")


def test_the_public_api_returns_names_that_are_not_utf8(odd_url: str) -> None:
    client = pytest.importorskip("gradio_client").Client(odd_url, verbose=False)
    found = client.predict("a red circle", 5, api_name="/search_text")
    assert {one["file"] for one in found} == {r"caf\xe9.png", "plain.png"}


def test_an_outdated_page_says_so_and_shows_no_other_image(
    open_tab: Any, tiny_bundle: Path, image_folder: Path, image_index: Path, tmp_path: Path
) -> None:
    for colour in COLOURS:
        for shape in SHAPES:  # as many as before, so every old row also exists here
            draw_image(colour, shape, (128, 128)).save(tmp_path / f"other-{colour}-{shape}.png")
    with DemoProcess("--index", str(image_index), "--bundle", str(tiny_bundle), "--provider", "cpu") as running:
        tab = open_tab(f"{running.url}?q=a+red+circle")
        dialog, cards = tab.get_by_role("dialog"), tab.locator("#results .card")
        expect(cards).to_have_count(12)
        tab.get_by_role("tab", name="Map").click()
        canvas = tab.locator("#map canvas")
        expect(canvas).to_have_attribute("data-painted", "search")
        canvas.focus()
        tab.keyboard.press("ArrowLeft")
        expect(tab.locator("#map .hover")).to_be_visible()
        tab.keyboard.press("Enter")
        expect(dialog.get_by_role("heading", level=2)).to_be_visible()

        other = tab.context.new_page()
        other.goto(running.url)
        other.get_by_role("tab", name="Library").click()
        other.get_by_label("Folder with images on this machine").fill(str(tmp_path))
        other.get_by_role("button", name="Index and open it").click()
        expect(other.locator(".job")).to_contain_text("12 images embedded")
        other.close()

        dialog.get_by_role("button", name="Why “a red circle”?").click()
        expect(dialog.locator(".notice")).to_have_text(CHANGED)
        dialog.get_by_role("button", name="Describe it").click()
        expect(tab.locator("#describe .found")).to_have_text(CHANGED)
        tab.get_by_role("tab", name="Map").click()
        tab.get_by_label("Colour by").dispatch_event("change")
        expect(tab.locator("#map .notice")).to_have_text(CHANGED)
        tab.get_by_role("tab", name="Search").click()
        cards.first.click()
        expect(dialog).to_have_text(CHANGED)
        tab.reload()
        expect(cards).to_have_count(12)
        cards.first.click()
        expect(dialog.get_by_role("heading", level=2)).to_contain_text("other-")
        tab.goto("about:blank")  # ends open requests, which would fail once the server has stopped


def test_a_model_that_failed_to_open_can_be_tried_again(
    open_tab: Any, tiny_bundle: Path, image_index: Path, tmp_path: Path
) -> None:
    own, damaged = tmp_path / "tiny", tmp_path / "damaged"
    for folder in (own, damaged):
        shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": "0" * 64}))
    with (damaged / "onnx/vision_model.onnx").open("ab") as file:
        file.write(b"more")
    with DemoProcess("--index", str(image_index), "--bundle", str(own), "--provider", "cpu") as running:
        tab = open_tab(running.url)
        tab.get_by_role("tab", name="Library").click()
        button = tab.get_by_role("button", name="Use damaged in fp32")
        button.click()
        expect(tab.locator(".job .message")).to_contain_text("does not match its SHA-256")
        expect(button).to_be_enabled()
        expect(button).to_have_text("Use")
        tab.goto("about:blank")


def test_bundles_of_the_same_name_can_each_be_chosen(
    tiny_bundle: Path, image_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("bundles/same", "models/same", "models/other"):
        shutil.copytree(tiny_bundle, tmp_path / place)
    monkeypatch.chdir(tmp_path)
    index = ImageIndex.open(image_index)
    app_state = AppState(Searcher(index, OnnxEncoders(Bundle.open("bundles/same"), "cpu", "fp32")), "cpu")
    assert set(app_state.bundles()) == {"bundles/same", "models/same", "other"}
    assert len(choices(app_state)) == len(set(choices(app_state)))
    models = handlers(app_state)["status"]({})["models"]
    assert {"bundles/same", "models/same", "other"} == set(re.findall(r'data-bundle="([^"]+)"', models))
    assert app_state.use("models/same", "fp32") is None
    assert app_state.search.searcher.encoders.bundle.folder.resolve() == tmp_path / "models/same"
    assert app_state.name_of(app_state.search.searcher.encoders.bundle) == "models/same"


class ProxiedDemo(DemoProcess):
    """`python -m demo` on a machine with a proxy that does not answer."""

    def start(self, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
        kept = {name: value for name, value in environment.items() if name.lower() != "no_proxy"}
        return super().start(command, {**kept, "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"})


def test_page_opens_where_requests_go_through_a_proxy(open_tab: Any, tiny_bundle: Path, image_index: Path) -> None:
    with ProxiedDemo("--index", str(image_index), "--bundle", str(tiny_bundle), "--provider", "cpu") as running:
        tab = open_tab(running.url)
        expect(tab.locator("#results .card")).to_have_count(12)
        tab.goto("about:blank")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "intranet, localhost"}, "intranet,localhost,127.0.0.1"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,b,127.0.0.1,localhost"),
    ],
)
def test_places_without_a_proxy_are_kept(before: dict[str, str], after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
        if name in before:
            monkeypatch.setenv(name, before[name])
    bypass_proxies()
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (after, after)
