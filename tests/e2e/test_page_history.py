"""History and late answers: Back, an image query that waits for looser filters, answers out of order."""

from pathlib import Path
from typing import Any

import pytest

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

CARDS = "#results .card"


def heading(tab: Any) -> Any:
    return tab.locator("#results h2")


def test_each_typed_query_is_one_history_entry(tab: Any) -> None:
    example = heading(tab).inner_text()
    before = tab.evaluate("history.length")
    for words in ("a red circle", "two dogs"):
        tab.locator("#words").fill(words[:5])  # a pause in typing: the query is sent
        tab.wait_for_url(f"**q={words[:5].strip().replace(' ', '+')}")
        tab.locator("#words").fill(words)
        tab.wait_for_url(f"**q={words.replace(' ', '+')}")
        tab.keyboard.press("Enter")
        tab.keyboard.press("Enter")  # the same query: no new entry
        expect(heading(tab)).to_have_text(f"Best matches for “{words}”")
    assert tab.evaluate("history.length") == before + 2
    tab.go_back()
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    expect(tab.locator("#words")).to_have_value("a red circle")
    tab.go_back()
    expect(heading(tab)).to_have_text(example)
    tab.go_forward()
    tab.locator(CARDS).first.click()
    tab.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(heading(tab)).to_contain_text("More like")
    tab.go_back()
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")


def test_a_late_answer_does_not_change_the_image_in_the_large_view(tab: Any) -> None:
    dialog = tab.get_by_role("dialog")
    titles = tab.locator(f"{CARDS} .title").all_text_contents()
    tab.locator(CARDS).nth(2).click()
    expect(dialog.get_by_role("heading", level=2)).to_have_text(titles[2])
    held: list[Any] = []
    tab.route("**/component_server**", lambda route: held.append(route) if not held else route.continue_())
    with tab.expect_request("**/component_server**"):
        tab.keyboard.press("ArrowLeft")
    for title in titles[2:4]:
        with tab.expect_response("**/component_server**"):
            tab.keyboard.press("ArrowRight")
        expect(dialog.get_by_role("heading", level=2)).to_have_text(title)
    with tab.expect_response("**/component_server**") as late:
        held[0].continue_()
    assert late.value.json()["title"] == titles[1]
    dialog.get_by_role("button", name="More like this").click()
    expect(heading(tab)).to_have_text(f"More like “{titles[3]}”")


def test_an_image_query_waits_while_a_filter_leaves_nothing(open_tab: Any, dated_url: str, image_folder: Path) -> None:
    tab = open_tab(f"{dated_url}?after=2024-08-01")
    expect(tab.locator("#results .message")).to_be_visible()
    chooser = tab.locator("#search input[type=file]")
    chooser.set_input_files(next(image_folder.glob("*.png")))
    expect(tab.locator("#results .message")).to_contain_text("No image matches these filters")
    expect(tab.locator(".with")).to_be_visible()
    tab.get_by_role("button", name="Clear filters").click()
    expect(heading(tab)).to_have_text("Most similar to your image")


def test_image_that_cannot_be_read_is_forgotten(tab: Any, tmp_path: Path) -> None:
    bad = tmp_path / "holiday.jpg"
    bad.write_text("this is no image")
    tab.locator("#search input[type=file]").set_input_files(bad)
    expect(tab.locator("#results .message")).to_contain_text("not an image in a known format")
    expect(tab.locator(".with")).to_be_hidden()
    tab.locator("#words").fill("a dog")
    expect(heading(tab)).to_have_text("Best matches for “a dog”")


def test_late_colours_do_not_replace_newer_ones(open_tab: Any, dated_url: str) -> None:
    tab = open_tab(f"{dated_url}?q=photo")
    tab.locator("#results .card").first.wait_for()  # this search colours the map
    tab.get_by_role("tab", name="Map").click()
    canvas, colour = tab.locator("#map canvas"), tab.get_by_label("Colour by")
    expect(canvas).to_have_attribute("data-painted", "search")
    held: list[Any] = []
    tab.route("**/component_server**", lambda route: held.append(route))
    with tab.expect_request("**/component_server**"):
        colour.dispatch_event("change")
    colour.select_option("folder")
    expect(canvas).to_have_attribute("data-painted", "folder")
    with tab.expect_response("**/component_server**") as late:
        held[0].continue_()
    assert "shades" in late.value.json()
    tab.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    expect(canvas).to_have_attribute("data-painted", "folder")
    assert tab.locator("#map .legend span").all_text_contents() == ["summer", "winter"]
