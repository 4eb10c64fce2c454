"""The search page in a real browser: words, pictures, the large view, uploads good and bad.

Every test runs at desktop and phone size; `tab` (conftest) fails it on a console error or an outside request.
"""

import re
from pathlib import Path
from typing import Any

import pytest

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

CARDS = "#words-results .card"
ALL_DECODED = "images => images.length > 0 && images.every(image => image.complete && image.naturalWidth > 0)"


def ask(tab: Any, words: str) -> None:
    tab.locator("#words").get_by_role("textbox").fill(words)
    tab.keyboard.press("Enter")


def test_first_load_already_shows_pictures(tab: Any) -> None:
    expect(tab.locator(CARDS)).to_have_count(12)
    expect(tab.locator("#status-line")).to_contain_text("12 pictures")
    expect(tab.locator("#status-line")).to_contain_text("running on the CPU")
    expect(tab.locator("#attribution")).to_have_count(0)  # nothing of OpenMoji's is shown


def test_words_and_enter_find_pictures_that_really_load(tab: Any) -> None:
    ask(tab, "a red circle")
    expect(tab.locator("#words-results .heading")).to_have_text("Best matches for “a red circle”")
    expect(tab.locator(CARDS)).to_have_count(12)
    tab.locator(CARDS).last.scroll_into_view_if_needed()
    tab.wait_for_function(f"({ALL_DECODED})([...document.querySelectorAll('{CARDS} img')])")
    scores = [float(text) for text in tab.locator(f"{CARDS} .score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)


def test_example_fills_the_box_and_searches(tab: Any) -> None:
    chip = tab.locator("#examples button").nth(1)
    words = chip.inner_text().strip()
    chip.click()
    expect(tab.locator("#words-results .heading")).to_have_text(f"Best matches for “{words}”")
    expect(tab.locator("#words").get_by_role("textbox")).to_have_value(words)


def test_empty_query_is_answered_with_a_message(tab: Any) -> None:
    ask(tab, "   ")
    expect(tab.locator("#words-results .message")).to_contain_text("Type a few words")
    ask(tab, "a dog")
    expect(tab.locator(CARDS)).to_have_count(12)


def test_words_are_shown_as_text_and_never_run(tab: Any) -> None:
    words = "${document.title='broken'} `{{x}}` <img src=x onerror=alert(1)>"
    ask(tab, words)
    expect(tab.locator("#words-results .heading")).to_have_text(f"Best matches for “{words}”")
    assert tab.title() == "MiniCLIP"


def test_large_view_opens_finds_captions_and_more_like_this(tab: Any) -> None:
    card = tab.locator(CARDS).nth(2)
    title = card.locator(".title").inner_text()
    card.click()
    dialog = tab.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_have_text(title)
    expect(dialog.locator(".file")).to_contain_text(re.compile(r"\.(jpg|png|jpeg)\b.* similarity"))
    tab.wait_for_function(f"({ALL_DECODED})([...document.querySelectorAll('dialog img')])")
    dialog.get_by_role("button", name="Find captions").click()
    expect(dialog.locator(".bars li")).not_to_have_count(0)

    tab.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    card.click()  # the same picture again
    dialog.get_by_role("button", name="More like this").click()
    expect(dialog).to_be_hidden()
    expect(tab.locator("#words-results .heading")).to_have_text(f"More like “{title}”")
    expect(tab.locator(CARDS)).to_have_count(11)  # all but the picture itself


def test_uploaded_picture_gets_captions_and_similar_pictures(tab: Any, picture_folder: Path) -> None:
    picture = next(path for path in sorted(picture_folder.rglob("*")) if path.suffix.lower() in (".jpg", ".png"))
    tab.get_by_role("tab", name="Picture").click()
    tab.locator("#upload input[type=file]").set_input_files(picture)
    expect(tab.locator("#captions .bars li")).not_to_have_count(0)
    expect(tab.locator("#picture-results .card")).to_have_count(12)
    tab.locator("#picture-results .card").first.click()
    expect(tab.get_by_role("dialog").locator(".file")).to_contain_text(picture.name)  # itself is the best match


def test_text_file_named_jpg_gets_a_message_and_then_a_good_one_works(
    tab: Any, tmp_path: Path, picture_folder: Path
) -> None:
    bad = tmp_path / "holiday.jpg"
    bad.write_text("this is no picture")
    tab.get_by_role("tab", name="Picture").click()
    chooser = tab.locator("#upload input[type=file]")
    chooser.set_input_files(bad)
    expect(tab.locator("#captions .message")).to_contain_text("not a picture in a known format")
    expect(tab.locator("#picture-results .card")).to_have_count(0)
    assert str(tmp_path) not in tab.content()
    good = next(path for path in sorted(picture_folder.rglob("*")) if path.suffix.lower() in (".jpg", ".png"))
    chooser.set_input_files(good)
    expect(tab.locator("#picture-results .card")).to_have_count(12)
