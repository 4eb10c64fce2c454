"""Selecting, copying and moving images with undo, duplicates, and saved searches, in a real browser."""

import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.photo_page import CARDS, PHOTOS, expect, photo_page, photo_url, photos, viewer
from tests.support.axe import serious

__all__ = ["photo_page", "photo_url", "photos"]  # fixtures


def selected(tab: Any) -> Any:
    return tab.locator(f"{CARDS}[aria-pressed=true]")


def test_images_are_selected_by_mouse_and_by_keyboard_and_downloaded(photo_page: Any, photos: Path) -> None:
    tab = photo_page
    cards = tab.locator(CARDS)
    cards.nth(1).click(modifiers=["ControlOrMeta"])
    cards.nth(3).click(modifiers=["Shift"])
    expect(selected(tab)).to_have_count(3)
    expect(tab.locator("dialog[open]")).to_have_count(0)
    cards.nth(2).click()
    expect(selected(tab)).to_have_count(2)
    cards.nth(5).focus()
    tab.keyboard.press("x")
    expect(tab.locator("#selection .count")).to_have_text("3")
    with tab.expect_download() as download:
        tab.get_by_role("region", name="Selected images").get_by_role("button", name="Download").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        assert len(archive.namelist()) == 3
        assert all(archive.read(name) == (photos / name).read_bytes() for name in archive.namelist())
    tab.keyboard.press("Escape")
    expect(selected(tab)).to_have_count(0)
    expect(tab.get_by_role("region", name="Selected images")).to_be_hidden()
    cards.first.click()  # opens again
    expect(tab.locator("#detail-dialog")).to_be_visible()


@pytest.mark.parametrize("query", ["?q=a+red+circle&copies=1", "?q=&copies=1"], ids=["results", "all images"])
def test_a_selected_image_has_a_visible_mark(open_tab: Any, photo_url: str, query: str) -> None:
    tab = open_tab(photo_url + query)
    expect(tab.locator(CARDS)).to_have_count(PHOTOS)
    tab.locator(CARDS).nth(1).click(modifiers=["ControlOrMeta"])
    expect(selected(tab)).to_have_count(1)
    mark = "card => getComputedStyle(card, '::after').content"
    assert selected(tab).evaluate(mark) == '"✓"'
    assert tab.locator(CARDS).nth(0).evaluate(mark) == '""'


def test_a_long_touch_begins_a_selection(photo_page: Any) -> None:
    tab = photo_page
    touch = tab.context.new_cdp_session(tab)
    touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    tab.locator(CARDS).first.scroll_into_view_if_needed()
    box = tab.locator(CARDS).first.bounding_box()
    point = {"x": box["x"] + 40, "y": box["y"] + 40}
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    expect(selected(tab)).to_have_count(1)
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(selected(tab)).to_have_count(1)
    expect(tab.locator("dialog[open]")).to_have_count(0)


def test_the_selection_outlives_another_search(photo_page: Any) -> None:
    tab = photo_page
    tab.get_by_role("button", name="Select", exact=True).click()
    tab.locator(CARDS).nth(0).click()
    row = tab.locator(CARDS).nth(0).get_attribute("data-row")
    tab.locator("#words").fill("a blue square")
    tab.keyboard.press("Enter")
    expect(tab.locator("#results h2")).to_have_text("Best matches for “a blue square”")
    expect(selected(tab)).to_have_count(1)
    assert selected(tab).get_attribute("data-row") == row


@pytest.mark.all_screens
def test_a_move_is_listed_done_and_undone(photo_page: Any, photos: Path) -> None:
    tab, away = photo_page, photos.parent / "away"
    before = sorted(os.listdir(photos))
    tab.get_by_role("button", name="Select", exact=True).click()
    for place in (0, 1):
        tab.locator(CARDS).nth(place).click()
    bar = tab.get_by_role("region", name="Selected images")
    assert serious(tab) == []
    bar.get_by_role("button", name="Move to…").click()
    dialog = tab.get_by_role("dialog", name="Move to a folder")
    dialog.get_by_label("Folder on this machine").fill(str(away))
    tab.keyboard.press("Enter")
    expect(dialog).to_contain_text(f"2 images will be moved to {away}.")
    assert serious(tab) == []
    assert sorted(os.listdir(photos)) == before
    dialog.get_by_role("button", name="Move", exact=True).click()
    expect(dialog).to_contain_text("2 images were moved.")
    assert len(os.listdir(away)) == 2 and len(os.listdir(photos)) == PHOTOS - 2
    dialog.get_by_role("button", name="Undo").click()
    expect(dialog).to_contain_text("Undone for 2 images.")
    assert sorted(os.listdir(photos)) == before and os.listdir(away) == []
    dialog.get_by_role("button", name="Close").click()
    expect(bar).to_be_hidden()
    expect(tab.locator(CARDS)).to_have_count(PHOTOS)


@pytest.mark.all_screens
def test_the_selection_bar_is_shown_only_with_the_results(photo_page: Any) -> None:
    tab = photo_page
    bar = tab.get_by_role("region", name="Selected images")
    tab.locator(CARDS).first.click(modifiers=["ControlOrMeta"])
    expect(bar).to_be_visible()
    for name in ("Describe", "Map", "Library", "Compare"):
        tab.get_by_role("tab", name=name).click()
        expect(bar).to_be_hidden()
        tab.keyboard.press("Escape")  # not for a selection that is out of sight
    tab.get_by_role("tab", name="Search").click()
    expect(bar).to_be_visible()
    expect(selected(tab)).to_have_count(1)


def test_the_dialog_explains_impossible_moves(photo_page: Any, photos: Path) -> None:
    tab = photo_page
    tab.locator(CARDS).first.click(modifiers=["ControlOrMeta"])
    tab.get_by_role("button", name="Copy to…").click()
    dialog = tab.get_by_role("dialog", name="Copy to a folder")
    folder = dialog.get_by_label("Folder on this machine")
    for given, expected in [
        ("", "Name a folder on this machine"),
        ("here", "not here."),
        (str(photos / "photo-1.jpg"), "is a file"),
    ]:
        folder.fill(given)
        dialog.get_by_role("button", name="Continue").click()
        expect(dialog).to_contain_text(expected)
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert len(os.listdir(photos)) == PHOTOS


@pytest.mark.all_screens
def test_a_search_is_saved_under_a_name_and_found_again(photo_page: Any) -> None:
    tab = photo_page
    tab.get_by_role("button", name="Save search").click()
    dialog = tab.get_by_role("dialog", name="Save this search")
    expect(dialog.get_by_label("Name")).to_have_value("a red circle")
    dialog.get_by_label("Name").fill("red <b>things</b>")
    assert serious(tab) == []
    tab.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    tab.locator("#words").fill("a dog")
    tab.keyboard.press("Enter")
    expect(tab.locator("#results h2")).to_have_text("Best matches for “a dog”")
    tab.reload()
    tab.get_by_text("Saved (1)").click()
    assert serious(tab) == []
    tab.get_by_role("button", name="red <b>things</b>", exact=True).click()
    expect(tab.locator("#results h2")).to_have_text("Best matches for “a red circle”")
    expect(tab).to_have_url(re.compile("copies=1"))  # including its filters
    tab.get_by_text("Saved (1)").click()
    tab.get_by_role("button", name="Delete the saved search").click()
    expect(tab.get_by_text("Saved (1)")).to_be_hidden()
    assert json.loads(tab.evaluate("localStorage.getItem('miniclip-searches')")) == []


def test_the_worse_of_two_equal_files_goes_to_the_trash(photo_page: Any, photos: Path) -> None:
    """The last test of this page, which has one image less afterwards."""
    tab = photo_page
    tab.get_by_role("tab", name="Library").click()
    tab.get_by_label("Minimum similarity").fill("1")
    tab.get_by_role("button", name="Find duplicates").click()
    expect(tab.locator(".groups > li")).to_have_count(1)
    tab.get_by_role("button", name="put the others into the trash…").click()
    dialog = tab.get_by_role("dialog", name="Put into the trash")
    expect(dialog).to_contain_text("One image will be put into the trash.")
    expect(dialog).to_contain_text(f"stays: {photos / 'copy.jpg'}")
    assert len(os.listdir(photos)) == PHOTOS
    dialog.get_by_role("button", name="Put into the trash").click()
    expect(dialog).to_contain_text("One image was put into the trash.")
    expect(dialog.get_by_role("button", name="Undo")).to_be_hidden()
    assert sorted(os.listdir(photos))[0] == "copy.jpg" and len(os.listdir(photos)) == PHOTOS - 1
    assert [path.name for path in photos.parent.rglob("photo-0.jpg")] == ["photo-0.jpg"]


@pytest.mark.all_screens
def test_images_that_are_browsed_by_date_are_selected_and_viewed(open_tab: Any, photo_url: str) -> None:
    tab = open_tab(photo_url)
    cards = tab.locator(".timeline button.card")
    expect(cards.first).to_be_visible()
    tab.get_by_role("button", name="Select", exact=True).click()
    cards.nth(0).click()
    cards.nth(2).click(modifiers=["Shift"])
    expect(tab.locator(".timeline .card[aria-pressed=true]")).to_have_count(3)
    assert serious(tab) == []
    tab.get_by_role("button", name="End the selection").click()
    shown = viewer(tab)
    expect(shown.locator(".place")).to_contain_text("1 of")
    tab.keyboard.press("ArrowRight")
    expect(shown.locator(".place")).to_contain_text("2 of")
