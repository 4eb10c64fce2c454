"""The other tabs in a real browser: Describe, Map, Library and Compare. Desktop and phone size, as in test_page.py."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


def go(tab: Any, name: str) -> None:
    tab.get_by_role("tab", name=name).click()


def test_upload_gets_captions_and_labels_with_probabilities(tab: Any, picture_folder: Path) -> None:
    go(tab, "Describe")
    picture = next(path for path in sorted(picture_folder.rglob("*")) if path.suffix == ".png")
    tab.locator("#captions input[type=file]").set_input_files(picture)
    expect(tab.locator("#captions .found .bars li")).not_to_have_count(0)
    tab.get_by_label("Labels, with commas between them").fill("red circle, blue square, dog")
    tab.get_by_text("Prompt templates").click()
    tab.get_by_label("One a line").fill("photo of a {}")
    tab.get_by_role("button", name="Compare labels").click()
    expect(tab.locator(".labelled .bars li")).to_have_count(3)
    shares = [int(re.sub(r"\D", "", text)) for text in tab.locator(".labelled .score").all_text_contents()]
    assert 97 <= sum(shares) <= 103
    tab.get_by_label("One a line").fill("no place for it")
    tab.get_by_role("button", name="Compare labels").click()
    expect(tab.locator(".labelled .message")).to_contain_text("needs {} where the label goes")


def test_picture_of_the_gallery_is_described(tab: Any) -> None:
    tab.locator("#results .card").first.click()
    tab.get_by_role("dialog").get_by_role("button", name="Describe it").click()
    expect(tab.locator("#captions .found .bars li")).not_to_have_count(0)
    tab.locator(".picks button").nth(3).click()
    expect(tab.locator(".labelled .bars li")).to_have_count(7)


def test_bad_upload_is_a_message(tab: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    go(tab, "Describe")
    tab.locator("#captions input[type=file]").set_input_files(tmp_path / "bad.png")
    expect(tab.locator("#captions .found .message")).to_contain_text("not a picture in a known format")
    assert str(tmp_path) not in tab.content()


def test_map_shows_every_picture_and_opens_one(tab: Any) -> None:
    go(tab, "Map")
    canvas = tab.locator("#map canvas")
    expect(canvas).to_have_attribute("data-dots", "12")
    expect(canvas).to_have_attribute("data-painted", "question")
    tab.get_by_role("button", name="Zoom in").click()
    expect(canvas).to_have_attribute("data-zoom", "1.50")
    tab.get_by_role("button", name="Whole map").click()
    canvas.focus()
    tab.keyboard.press("ArrowLeft")  # points at what is nearest to the middle, and shows it
    expect(tab.locator("#map .hover")).to_be_visible()
    expect(canvas).to_have_attribute("data-row", re.compile(r"\d+"))
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("dialog").get_by_role("heading", level=2)).to_be_visible()


def test_mouse_points_and_clicks_on_the_map(tab: Any) -> None:
    go(tab, "Map")
    canvas = tab.locator("#map canvas")
    expect(canvas).to_have_attribute("data-dots", "12")
    canvas.focus()
    tab.keyboard.press("ArrowLeft")
    expect(tab.locator("#map .hover")).to_be_visible()
    x, y = map(float, canvas.get_attribute("data-at").split())
    box = canvas.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 2)
    expect(tab.locator("#map .hover")).to_be_hidden()
    tab.mouse.move(box["x"] + x, box["y"] + y)
    expect(tab.locator("#map .hover")).to_be_visible()
    tab.mouse.down()
    tab.mouse.up()
    expect(tab.get_by_role("dialog").get_by_role("heading", level=2)).to_be_visible()


def test_library_tells_status_models_and_duplicates(tab: Any, picture_folder: Path) -> None:
    go(tab, "Library")
    facts = tab.locator(".facts-of-index")
    expect(facts).to_contain_text("12")
    expect(facts).to_contain_text(str(picture_folder))
    expect(facts).to_contain_text("on the CPU in int8")
    rows = tab.locator("#library tbody tr").filter(has_text="tiny")  # beside those of the checkout
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="int8")).to_contain_text("in use")
    tab.get_by_role("slider").fill("1")
    tab.get_by_role("button", name="Look for them").click()
    expect(tab.locator(".copies .message")).to_have_text("No picture is here twice.")


def test_compare_shows_two_precisions_with_their_times(tab: Any) -> None:
    go(tab, "Compare")
    expect(tab.get_by_label("First")).to_have_value("tiny · int8")
    tab.get_by_label("Second").select_option("tiny · fp32")
    tab.get_by_label("Words", exact=True).fill("a red circle")
    tab.get_by_role("button", name="Compare", exact=True).click()
    expect(tab.locator(".sides section")).to_have_count(2)
    for times in tab.locator(".sides h3 .score").all_text_contents():
        assert re.fullmatch(r"\d+\.\d ms a query", times)
    expect(tab.locator(".sides section").first.locator(".card")).to_have_count(12)


def test_another_folder_is_indexed_with_its_skipped_files_and_then_open(
    open_tab: Any, tiny_bundle: Path, picture_folder: Path, demo_process: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted(picture_folder.glob("*.png"))[:3]:
        shutil.copy(path, other)
    shutil.copy(other / min(path.name for path in other.iterdir()), other / "twin.png")
    (other / "broken.jpg").write_text("no picture")
    with demo_process("--images", str(picture_folder), "--bundle", str(tiny_bundle), "--provider", "cpu") as running:
        tab = open_tab(running.url)
        go(tab, "Library")
        tab.get_by_label("Folder with pictures on this machine").fill(str(tmp_path / "none"))
        tab.get_by_role("button", name="Index and open it").click()
        expect(tab.locator(".job .message")).to_contain_text("does not exist")
        tab.get_by_label("Folder with pictures on this machine").fill(str(other))
        tab.get_by_role("button", name="Index and open it").click()
        expect(tab.locator(".job")).to_contain_text("4 pictures embedded")
        expect(tab.locator(".job .skipped li")).to_have_text(re.compile("broken.jpg .*not a picture"))
        tab.get_by_role("button", name="Look for them").click()
        expect(tab.locator(".copies .groups .card").first).to_be_visible()
        tab.get_by_role("button", name="Open the gallery").click()
        expect(tab.locator("#results .card")).to_have_count(3)  # one row a distinct picture
        expect(tab.locator("#status-line")).to_contain_text("4 pictures (1 could not be read)")
        tab.goto("about:blank")  # what the page still asks for is no error once the server has stopped


def test_precision_is_changed_while_the_page_runs(
    open_tab: Any, tiny_bundle: Path, picture_index: Path, demo_process: Any
) -> None:
    flags = ("--index", str(picture_index), "--bundle", str(tiny_bundle), "--provider", "cpu")
    with demo_process(*flags) as running:
        tab = open_tab(running.url)
        go(tab, "Library")
        with tab.expect_navigation():
            tab.get_by_role("button", name="Use tiny in fp32").click()
        expect(tab.locator("#status-line")).to_contain_text("running on the CPU in fp32")
        expect(tab.locator("#results .card")).to_have_count(12)
        tab.goto("about:blank")
