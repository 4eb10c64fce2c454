"""Videos on the page, in a real browser: the moment on the card, playing from it, and the file behind it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.conftest import DemoProcess
from tests.support.axe import serious
from tests.support.videos import BLUE, GREEN, RED, write_video

pytest.importorskip("av", reason="the extra video is not installed")
expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

PLAYER = "#viewer-dialog video"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that begins red and ends blue, a video in a format that browsers do not play, and a photograph."""
    folder = tmp_path_factory.mktemp("videos") / "clips"
    write_video(folder / "party.webm", [(RED, 4), (BLUE, 4)], (320, 240), {"creation_time": "2024-05-01T12:00:00Z"})
    write_video(folder / "old.avi", [(GREEN, 2)])
    Image.new("RGB", (320, 240), RED).save(folder / "red.png")
    return folder


@pytest.fixture(scope="module")
def clips_url(clips: Path, tiny_bundle: Path) -> Iterator[str]:
    patch = pytest.MonkeyPatch()
    patch.setenv("MINICLIP_STATE", str(clips.parent / "state"))
    with DemoProcess("--images", str(clips), "--bundle", str(tiny_bundle), "--provider", "cpu") as process:
        patch.undo()
        yield process.url


def open_party(tab: Any) -> Any:
    """The viewer of the video, by the card of its moment; the moment's second."""
    card = tab.locator('#results .card[title^="party.webm at "]')
    second = float(card.get_attribute("data-second"))
    card.click()
    tab.locator("#detail-dialog").get_by_role("button", name="Play").click()
    expect(tab.locator(PLAYER)).to_be_visible()
    return second


@pytest.mark.all_screens
def test_a_video_opens_at_the_moment_that_was_found(open_tab: Any, clips_url: str) -> None:
    tab = open_tab(f"{clips_url}?q=a+blue+square")
    expect(tab.locator("#results .card")).to_have_count(3)  # a video once, though it has two scenes
    second = open_party(tab)
    tab.wait_for_function(f"document.querySelector('{PLAYER}').currentTime > {second}")
    assert tab.evaluate(f"document.querySelector('{PLAYER}').played.start(0)") == pytest.approx(second, abs=0.1)
    assert tab.evaluate(f"document.querySelector('{PLAYER}').duration") == pytest.approx(8, abs=0.3)
    expect(tab.locator("#viewer-dialog .plane")).to_be_hidden()
    expect(tab.locator("#viewer-dialog [data-tool=larger]")).to_be_hidden()
    assert serious(tab) == []
    tab.locator("#viewer-dialog [data-tool=info]").click()
    expect(tab.locator("#viewer-info")).to_contain_text("party.webm")
    tab.keyboard.press("Escape")
    expect(tab.locator("#viewer-dialog")).to_be_hidden()
    tab.wait_for_function(f"!document.querySelector('{PLAYER}').hasAttribute('src')")  # it is not played unseen


def test_the_viewer_turns_from_a_video_to_an_image_and_back(open_tab: Any, clips_url: str) -> None:
    tab = open_tab(f"{clips_url}?q=a+blue+square")
    open_party(tab)
    viewer = tab.locator("#viewer-dialog")
    for _ in range(2):  # towards the image, whichever side it is on
        for name in ("Next image", "Previous image"):
            button = viewer.get_by_role("button", name=name)
            if button.is_visible() and viewer.locator("h2").inner_text() != "red.png":
                button.click()
    expect(viewer.locator("h2")).to_have_text("red.png")
    expect(viewer.locator(".plane")).to_be_visible()
    expect(viewer.locator("[data-original]")).to_be_visible()
    expect(tab.locator(PLAYER)).to_be_hidden()
    expect(viewer.locator("[data-tool=larger]")).to_be_visible()


def test_a_video_that_the_browser_cannot_play_shows_its_frame(open_tab: Any, clips_url: str) -> None:
    tab = open_tab(f"{clips_url}?q=a+green+square")
    tab.locator('#results .card[title^="old.avi"]').click()
    tab.locator("#detail-dialog").get_by_role("button", name="Play").click()
    viewer = tab.locator("#viewer-dialog")
    expect(viewer.locator(".notice")).to_have_text("This browser cannot play the video: download it.")
    expect(viewer.locator(".plane img")).to_be_visible()
    with tab.expect_download() as download:
        viewer.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "old.avi"


def test_the_timeline_has_a_video_once_and_it_moves_as_one_file(open_tab: Any, clips_url: str, clips: Path) -> None:
    tab = open_tab(clips_url)
    cards = tab.locator("#results .timeline .card")
    expect(cards).to_have_count(3)
    expect(tab.locator("#results .timeline .card[data-second]")).to_have_count(2)
    before = (clips / "party.webm").read_bytes()
    tab.locator('#results .card[title^="party.webm"]').click(modifiers=["ControlOrMeta"])
    tab.locator("#selection [data-do=copy]").click()
    dialog = tab.get_by_role("dialog", name="Copy to a folder")
    dialog.get_by_label("Folder on this machine").fill(str(clips.parent / "chosen"))
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_contain_text("One image will be copied to")
    dialog.get_by_role("button", name="Copy", exact=True).click()
    expect(dialog).to_contain_text("One image was copied")
    assert os.listdir(clips.parent / "chosen") == ["party.webm"]
    assert (clips.parent / "chosen/party.webm").read_bytes() == before
