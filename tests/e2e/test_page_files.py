"""The viewer in a real browser: zoom, steps, details, paths and downloads."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.photo_page import CARDS, PHOTOS, expect, photo_page, photo_url, photos, viewer
from tests.support.axe import serious
from tests.support.photos_on_disk import CAMERA, LENS, PLACE

__all__ = ["photo_page", "photo_url", "photos"]  # fixtures


def scale(tab: Any) -> float:
    return float(tab.evaluate("new DOMMatrix(document.querySelector('#viewer-dialog .plane img').style.transform).a"))


@pytest.mark.all_screens
def test_the_viewer_shows_the_original_steps_and_returns_the_focus(photo_page: Any) -> None:
    tab = photo_page
    shown = viewer(tab)
    assert tab.evaluate("document.querySelector('#viewer-dialog .plane img').naturalWidth") == 1600
    expect(shown.locator(".place")).to_have_text(f"1 of {PHOTOS}")
    expect(shown.get_by_role("button", name="Previous image")).to_be_hidden()
    tab.keyboard.press("ArrowRight")
    expect(shown.locator(".place")).to_have_text(f"2 of {PHOTOS}")
    shown.get_by_role("button", name="Next image").click()
    expect(shown.locator(".place")).to_have_text(f"3 of {PHOTOS}")
    assert serious(tab) == []
    box = shown.bounding_box()
    assert (box["x"], box["y"]) == (0, 0) and box["width"] == tab.viewport_size["width"]
    tab.keyboard.press("Escape")
    expect(shown).to_be_hidden()
    third = tab.locator(CARDS).nth(2)
    detail = tab.locator("#detail-dialog")
    expect(detail.get_by_role("heading", level=2)).to_have_text(third.locator(".title").inner_text())
    tab.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    expect(third).to_be_focused()


def test_keys_wheel_and_double_click_zoom_and_drags_pan(photo_page: Any) -> None:
    tab = photo_page
    shown = viewer(tab)
    tab.keyboard.press("+")
    tab.keyboard.press("+")
    assert scale(tab) == pytest.approx(1.69)
    expect(shown.locator(".scale")).to_have_text("169 %")
    tab.keyboard.press("ArrowRight")  # pans the image instead of stepping
    expect(shown.locator(".place")).to_have_text(f"1 of {PHOTOS}")
    tab.keyboard.press("-")
    tab.keyboard.press("0")
    assert scale(tab) == 1
    plane = shown.locator(".plane")
    plane.dblclick(position={"x": 300, "y": 200})
    assert scale(tab) == 2.5
    before = tab.evaluate("document.querySelector('#viewer-dialog .plane img').style.transform")
    box = plane.bounding_box()
    tab.mouse.move(box["x"] + 400, box["y"] + 300)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 340, box["y"] + 250, steps=4)
    tab.mouse.up()
    assert tab.evaluate("document.querySelector('#viewer-dialog .plane img').style.transform") != before
    expect(shown.locator(".place")).to_have_text(f"1 of {PHOTOS}")
    plane.dblclick()
    assert scale(tab) == 1
    tab.mouse.wheel(0, -400)
    tab.wait_for_function("new DOMMatrix(document.querySelector('#viewer-dialog .plane img').style.transform).a > 2")
    tab.keyboard.press("PageDown")  # still steps, and fits the image again
    expect(shown.locator(".place")).to_have_text(f"2 of {PHOTOS}")
    assert scale(tab) == 1


def test_fingers_swipe_and_pinch(photo_page: Any) -> None:
    tab = photo_page
    tab.set_viewport_size({"width": 390, "height": 844})
    shown = viewer(tab)
    touch = tab.context.new_cdp_session(tab)
    touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})

    def move(*steps: list[tuple[int, int]]) -> None:
        for number, points in enumerate(steps):
            kind = "touchStart" if number == 0 else "touchMove"
            places = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(points)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    move([(300, 450)], [(200, 450)], [(120, 455)])
    expect(shown.locator(".place")).to_have_text(f"2 of {PHOTOS}")
    move([(100, 450)], [(200, 450)], [(290, 455)])
    expect(shown.locator(".place")).to_have_text(f"1 of {PHOTOS}")
    move([(180, 450), (220, 450)], [(150, 450), (250, 450)], [(120, 450), (280, 450)])
    assert scale(tab) == pytest.approx(4, rel=0.1)
    tab.keyboard.press("0")
    move([(200, 300)], [(200, 400)], [(205, 520)])
    expect(shown).to_be_hidden()


@pytest.mark.all_screens
def test_details_name_camera_lens_exposure_place_and_path(photo_page: Any, photos: Path) -> None:
    tab = photo_page
    shown = viewer(tab)
    shown.get_by_role("button", name="Details").click()
    facts = shown.locator("aside dl")
    for text in (CAMERA, LENS, "1/250 s, f/2.8, ISO 200, 35 mm", PLACE, "1,600 × 1,200 px", str(photos)):
        expect(facts).to_contain_text(text)
    assert serious(tab) == []
    expect(shown.get_by_role("button", name="Show in folder")).to_be_hidden()  # there is no desktop here


def test_path_is_copied_and_the_file_downloaded_as_it_is(photo_page: Any) -> None:
    tab = photo_page
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown = viewer(tab)
    shown.get_by_role("button", name="Copy path").click()
    expect(shown.locator(".notice")).to_have_text("The path was copied.")
    path = Path(tab.evaluate("navigator.clipboard.readText()"))
    with tab.expect_download() as download:
        shown.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == path.name
    assert Path(download.value.path()).read_bytes() == path.read_bytes()
