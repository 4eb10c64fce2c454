"""Search in a real browser: words, images, filters, the large view, the address, downloads, good and bad uploads.

conftest.py chooses the screens of each test. A console error or an outside request fails the test.
"""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

CARDS = "#results .card"
ALL_DECODED = "images => images.length > 0 && images.every(image => image.complete && image.naturalWidth > 0)"


def ask(tab: Any, words: str) -> None:
    tab.locator("#words").fill(words)
    tab.keyboard.press("Enter")


def heading(tab: Any) -> Any:
    return tab.locator("#results h2")


def one_image(folder: Path) -> Path:
    return next(path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".png"))


def test_first_load_already_shows_images(tab: Any) -> None:
    expect(tab.locator(CARDS)).to_have_count(12)
    expect(tab.locator("#status-line")).to_contain_text("12 images")
    expect(tab.locator("#status-line")).to_contain_text("running on the CPU")
    expect(tab.locator("#attribution")).to_have_text("")  # OpenMoji is not shown


@pytest.mark.all_screens
def test_words_and_enter_find_images_that_load(tab: Any) -> None:
    ask(tab, "a red circle")
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    expect(tab.locator(CARDS)).to_have_count(12)
    tab.locator(CARDS).last.scroll_into_view_if_needed()
    tab.wait_for_function(f"({ALL_DECODED})([...document.querySelectorAll('{CARDS} img')])")
    scores = [float(text) for text in tab.locator(f"{CARDS} .score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)


def test_results_appear_while_typing_and_the_newest_query_wins(tab: Any) -> None:
    tab.locator("#words").fill("")
    tab.locator("#words").press_sequentially("a blue square", delay=15)
    expect(heading(tab)).to_have_text("Best matches for “a blue square”")
    # the answer to an older query arrives last and is discarded
    held: list[Any] = []
    tab.route("**/component_server**", lambda route: held.append(route) if not held else route.continue_())
    with tab.expect_request("**/component_server**"):
        tab.locator("#words").fill("two dogs")
    ask(tab, "a green triangle")
    expect(heading(tab)).to_have_text("Best matches for “a green triangle”")
    with tab.expect_response("**/component_server**"):
        held[0].continue_()
    expect(heading(tab)).to_have_text("Best matches for “a green triangle”")


def test_example_fills_the_box_and_searches(tab: Any) -> None:
    chip = tab.locator(".examples button").first
    words = chip.inner_text().strip()
    chip.click()
    expect(heading(tab)).to_have_text(f"Best matches for “{words}”")
    expect(tab.locator("#words")).to_have_value(words)


def test_empty_query_shows_all_images(tab: Any) -> None:
    ask(tab, "   ")
    expect(heading(tab)).to_have_text("All 12 images")
    expect(tab.locator(CARDS)).to_have_count(12)
    ask(tab, "a dog")
    expect(tab.locator(CARDS)).to_have_count(12)


def test_words_are_shown_as_text_and_never_run(tab: Any) -> None:
    words = "${document.title='broken'} `{{x}}` <img src=x onerror=alert(1)>"
    ask(tab, words)
    expect(heading(tab)).to_have_text(f"Best matches for “{words}”")
    assert tab.title() == "MiniCLIP"


def test_unwanted_words_change_the_order_and_the_address(tab: Any) -> None:
    ask(tab, "a red circle")
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    before = tab.locator(f"{CARDS} .title").all_text_contents()
    tab.get_by_role("button", name="Filters", exact=True).click()
    tab.get_by_label("Without").fill("circle, red")
    tab.wait_for_url("**not=circle*")
    tab.wait_for_function(
        "before => [...document.querySelectorAll('#results .title')].map(t => t.textContent).join() !== before.join()",
        arg=before,
    )
    expect(tab.get_by_role("button", name="Filters (1)")).to_be_visible()


def test_a_link_reopens_the_query(tab: Any) -> None:
    ask(tab, "a yellow square")
    tab.wait_for_url("**q=a+yellow+square*")
    expect(heading(tab)).to_have_text("Best matches for “a yellow square”")
    titles = tab.locator(f"{CARDS} .title").all_text_contents()
    tab.goto(tab.url)
    expect(tab.locator("#words")).to_have_value("a yellow square")
    expect(heading(tab)).to_have_text("Best matches for “a yellow square”")
    assert tab.locator(f"{CARDS} .title").all_text_contents() == titles


def test_back_returns_to_the_previous_query(tab: Any) -> None:
    ask(tab, "a yellow square")
    expect(heading(tab)).to_have_text("Best matches for “a yellow square”")
    tab.locator(".examples button").first.click()
    expect(heading(tab)).not_to_have_text("Best matches for “a yellow square”")
    tab.go_back()
    expect(heading(tab)).to_have_text("Best matches for “a yellow square”")


def test_results_are_downloaded_as_json_and_csv(tab: Any) -> None:
    ask(tab, "a red circle")
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    files = {}
    for kind in ("JSON", "CSV"):
        with tab.expect_download() as download:
            tab.get_by_role("link", name=f"Download the results as {kind}").click()
        files[kind] = Path(download.value.path()).read_text(encoding="utf-8")
    results = json.loads(files["JSON"])["results"]
    rows = list(csv.DictReader(io.StringIO(files["CSV"])))
    assert len(results) == len(rows) == 12
    assert [row["picture"] for row in rows] == [one["picture"] for one in results]
    assert results[0]["captions"] and results[0]["score"] >= results[-1]["score"]


@pytest.mark.all_screens
def test_the_large_view_shows_details_and_similar_images(tab: Any, image_folder: Path) -> None:
    card = tab.locator(CARDS).nth(2)
    title = card.locator(".title").inner_text()
    card.click()
    dialog = tab.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_have_text(title)
    expect(dialog.locator("dl")).to_contain_text(str(image_folder))
    expect(dialog.locator("dl")).to_contain_text(re.compile(r"Similarity-?0\.\d{3}"))
    tab.wait_for_function(f"({ALL_DECODED})([...document.querySelectorAll('dialog .frame img')])")
    tab.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading", level=2)).to_have_text(
        tab.locator(CARDS).nth(3).locator(".title").inner_text()
    )
    dialog.get_by_role("button", name="Previous image").click()
    expect(dialog.get_by_role("heading", level=2)).to_have_text(title)
    tab.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    card.click()  # the same image again
    dialog.get_by_role("button", name="More like this").click()
    expect(dialog).to_be_hidden()
    expect(heading(tab)).to_have_text(f"More like “{title}”")
    expect(tab.locator(CARDS)).to_have_count(11)  # all except the image itself
    tab.goto(tab.url)  # a link to this result
    expect(heading(tab)).to_have_text(f"More like “{title}”")


def test_words_and_image_together_have_a_weight(tab: Any) -> None:
    ask(tab, "a red circle")
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    tab.locator(CARDS).nth(5).click()
    tab.get_by_role("dialog").get_by_role("button", name="Add to the search").click()
    expect(heading(tab)).to_contain_text("“a red circle”, and like")
    scores = tab.locator(f"{CARDS} .score").all_text_contents()
    tab.get_by_label("Weight of the words, in percent").fill("0")
    tab.wait_for_function(
        "before => [...document.querySelectorAll('#results .score')].map(t => t.textContent).join() !== before.join()",
        arg=scores,
    )
    tab.get_by_role("button", name="Remove the image from the query").click()
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")


def test_heat_map_lies_exactly_on_the_image(tab: Any) -> None:
    ask(tab, "a red circle")
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    tab.locator(CARDS).first.click()
    dialog = tab.get_by_role("dialog")
    dialog.get_by_role("button", name="Why “a red circle”?").click()
    expect(dialog.locator(".notice")).to_have_text(re.compile("similarity|matters alone"))
    heat = dialog.locator(".heat")
    if heat.count():
        image = dialog.locator(".frame img").first.bounding_box()
        over = heat.bounding_box()
        assert all(abs(image[side] - over[side]) < 1.5 for side in ("x", "y", "width", "height"))


@pytest.mark.all_screens
def test_uploaded_image_finds_itself(tab: Any, image_folder: Path) -> None:
    image = one_image(image_folder)
    tab.locator("#words").fill("")
    tab.locator("#search input[type=file]").set_input_files(image)
    expect(heading(tab)).to_have_text("Most similar to your image")
    tab.locator(CARDS).first.click()
    expect(tab.get_by_role("dialog").locator("dl")).to_contain_text(image.name)  # itself is the best match


GIVE = """([how, bytes]) => {
    const files = new DataTransfer();
    files.items.add(new File([new Uint8Array(bytes)], 'given.png', {type: 'image/png'}));
    const event = how === 'paste'
        ? new ClipboardEvent(how, {clipboardData: files, bubbles: true})
        : new DragEvent(how, {dataTransfer: files, bubbles: true, cancelable: true});
    document.querySelector('#words').dispatchEvent(event);
    return event.defaultPrevented;
}"""


def test_pasted_image_is_taken(tab: Any, image_folder: Path) -> None:
    tab.locator("#words").fill("")
    tab.evaluate(GIVE, ["paste", list(one_image(image_folder).read_bytes())])
    expect(heading(tab)).to_have_text("Most similar to your image")


@pytest.mark.all_screens
def test_image_dropped_on_the_search_box_is_taken(tab: Any, image_folder: Path) -> None:
    image = list(one_image(image_folder).read_bytes())
    tab.locator("#words").fill("")
    assert tab.evaluate(GIVE, ["dragover", image])  # otherwise the browser would open the file instead of the page
    expect(tab.locator("html")).to_have_class(re.compile("dragging"))
    assert tab.evaluate(GIVE, ["drop", image])
    expect(tab.locator("html")).not_to_have_class(re.compile("dragging"))
    expect(heading(tab)).to_have_text("Most similar to your image")
    expect(tab.locator(".with .name")).to_have_text("given.png")
    tab.locator(CARDS).first.click()
    expect(tab.get_by_role("dialog").locator("dl")).to_contain_text(one_image(image_folder).name)


def test_a_text_file_named_jpg_gets_a_message_and_a_good_image_then_works(
    tab: Any, tmp_path: Path, image_folder: Path
) -> None:
    bad = tmp_path / "holiday.jpg"
    bad.write_text("this is no image")
    chooser = tab.locator("#search input[type=file]")
    chooser.set_input_files(bad)
    expect(tab.locator("#results .message")).to_contain_text("not an image in a known format")
    expect(tab.locator(CARDS)).to_have_count(0)
    assert str(tmp_path) not in tab.content()
    chooser.set_input_files(one_image(image_folder))
    expect(tab.locator(CARDS)).to_have_count(12)


def test_folder_and_date_filters(tab: Any, dated_url: str) -> None:
    tab.goto(f"{dated_url}?q=photo")
    expect(tab.locator(CARDS)).to_have_count(3)  # four files, two of them equal
    tab.get_by_role("button", name="Filters", exact=True).click()
    tab.get_by_label("Show copies").check()
    expect(tab.locator(CARDS)).to_have_count(4)
    tab.get_by_label("In folder").select_option("summer")
    expect(tab.locator(CARDS)).to_have_count(2)
    tab.get_by_label("From", exact=True).fill("2024-07-02")
    expect(tab.locator(CARDS)).to_have_count(1)
    tab.locator(CARDS).click()
    expect(tab.get_by_role("dialog").locator("dl")).to_contain_text("2024-07-15")
    tab.keyboard.press("Escape")
    tab.get_by_label("To", exact=True).fill("2024-07-03")
    expect(tab.locator("#results .message")).to_contain_text("No image matches these filters")
    tab.get_by_role("button", name="Clear filters").click()
    expect(tab.locator(CARDS)).to_have_count(3)


def test_a_page_without_good_matches_says_so(tab: Any, dated_url: str) -> None:
    tab.goto(f"{dated_url}?q=photo")
    expect(tab.locator("#results .note")).to_contain_text("Nothing here matches well")


def test_more_results_are_shown_on_demand(tab: Any, captioned_url: str) -> None:
    tab.goto(f"{captioned_url}?q=a+red+circle")
    expect(tab.locator(CARDS)).to_have_count(24)
    tab.get_by_role("button", name="Show more").click()
    expect(tab.locator(CARDS)).to_have_count(48)


def test_openmoji_gallery_names_its_makers_and_is_searched(open_tab: Any, openmoji_url: str) -> None:
    tab = open_tab(openmoji_url)
    expect(tab.locator("#attribution")).to_have_text("Images: OpenMoji, CC BY-SA 4.0")
    expect(tab.locator(".examples button").first).to_have_text("a cat")
    expect(tab.locator(CARDS)).to_have_count(24)
    expect(tab.get_by_label("In folder")).to_be_hidden()  # they are in one folder
    tab.locator(CARDS).first.click()
    expect(tab.get_by_role("dialog").get_by_role("heading", level=2)).to_be_visible()
    tab.keyboard.press("Escape")
    tab.get_by_role("tab", name="Map").click()
    expect(tab.locator("#map canvas")).to_have_attribute("data-dots", "1918")
