"""All images by date, filters of the form, and the order of results, in a real browser. Screens as in test_page.py."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.e2e.conftest import DemoProcess
from tests.support.axe import serious
from tests.support.many_images import write_many
from tests.support.photos import write_photo

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
CARDS = "#results .card"
MANY = 100_000
MIN_FRAMES_PER_S = 50
ATTEMPTS = 6  # other work on the machine costs frames, so the best attempt counts
EMPTY_PAGE = "data:text/html,<div style='height:3000000px'></div>"
# scrolls at this speed in pixels per second for some seconds, and counts the drawn frames
FRAMES_PER_S = """async ([speed, seconds]) => {
    const from = scrollY;
    return await new Promise((done) => {
        let start, frames = 0;
        const step = (now) => {
            start ??= now;
            scrollTo(0, from + speed * (now - start) / 1000);
            if (now - start >= 1000 * seconds) return done([1000 * frames / (now - start), scrollY - from]);
            frames++;
            requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
    });
}"""


@pytest.fixture(scope="session")
def photos_url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of 64 photographs of four months, of two cameras, in Paris and Sydney, and one without a date."""
    folder = tmp_path_factory.mktemp("cameras") / "photos"
    for number in range(64):
        camera = ("Canon", "Canon EOS R5") if number % 2 else ("Apple", "iPhone 15")
        place = (48.8584, 2.2945) if number % 4 == 1 else (-33.8568, 151.2153) if number % 4 == 2 else None
        day = f"2024:{1 + number // 16:02}:{1 + number % 16:02} 10:00:00"
        size = (64, 48) if number % 3 else (48, 64)
        write_photo(
            folder / f"{number:02}.jpg",
            camera,
            day,
            place,
            number % 6,
            size=size,
            colour=(4 * number, 90, 200 - 3 * number),
        )
    write_photo(folder / "undated.png", size=(48, 48), colour="white")
    with DemoProcess("--images", str(folder), "--bundle", str(tiny_bundle), "--provider", "cpu") as process:
        yield process.url


@pytest.fixture(scope="session")
def many_url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of 100,000 images."""
    bundle = Bundle.open(tiny_bundle)
    dim = OnnxEncoders(bundle, "cpu", "fp32", threads=1).dim
    index = write_many(tmp_path_factory.mktemp("many"), bundle, dim, MANY, undated=500)
    with DemoProcess("--index", str(index), "--bundle", str(tiny_bundle), "--provider", "cpu") as process:
        yield process.url


def heading(tab: Any) -> Any:
    return tab.locator("#results h2")


def titles(tab: Any) -> list[str]:
    return [str(title) for title in tab.locator(f"{CARDS} .title").all_text_contents()]


@pytest.mark.all_screens
def test_an_empty_query_shows_all_images_by_month(open_tab: Callable[[str], Any], photos_url: str) -> None:
    pytest.importorskip("axe_playwright_python")
    tab = open_tab(photos_url)
    expect(heading(tab)).to_have_text("All 65 images")
    expect(tab.locator("#words")).to_have_value("")
    expect(tab.locator("#results h3").first).to_have_text("April 2024")
    expect(tab.locator(CARDS).first).to_have_attribute("title", "63.jpg")  # the newest
    expect(tab.get_by_label("Sort by")).to_be_hidden()  # already ordered by date
    tab.get_by_role("button", name="Filters", exact=True).click()
    expect(tab.get_by_label("Camera")).to_be_visible()
    assert serious(tab) == []
    tab.get_by_label("Go to").select_option("Without a date (1)")
    expect(tab.locator("#results section").last).to_have_attribute("aria-label", "Without a date, 1 image")
    expect(tab.locator("#results section").last.locator(".card")).to_be_in_viewport()
    assert serious(tab) == []


@pytest.mark.all_screens
def test_filters_work_alone_and_are_in_the_address(open_tab: Callable[[str], Any], photos_url: str) -> None:
    tab = open_tab(photos_url)
    expect(heading(tab)).to_have_text("All 65 images")
    tab.get_by_role("button", name="Filters", exact=True).click()
    tab.get_by_label("Camera").select_option("Canon EOS R5")
    expect(heading(tab)).to_have_text("32 images")
    tab.get_by_label("Near", exact=True).fill("48.86, 2.3376")
    expect(heading(tab)).to_have_text("16 images")
    tab.get_by_label("Within (km)").fill("1")
    expect(tab.locator("#results .message")).to_contain_text("No image matches these filters")
    tab.get_by_label("Within (km)").fill("5")
    expect(heading(tab)).to_have_text("16 images")
    tab.get_by_label("Shape").select_option("portrait")
    tab.get_by_label("Rating").select_option("4 stars or more")
    expect(tab.get_by_role("button", name="Filters (5)")).to_be_visible()
    tab.wait_for_url("**min_rating=4*")
    tab.goto(tab.url)
    expect(tab.get_by_role("button", name="Filters (5)")).to_be_visible()
    expect(tab.get_by_label("Camera")).to_have_value("Canon EOS R5")
    tab.get_by_role("button", name="Clear filters").click()
    expect(heading(tab)).to_have_text("All 65 images")


@pytest.mark.all_screens
def test_images_that_were_taken_nearby_are_one_click_away(open_tab: Callable[[str], Any], photos_url: str) -> None:
    pytest.importorskip("axe_playwright_python")
    tab = open_tab(f"{photos_url}?q=a+red+circle&camera=Canon+EOS+R5")
    tab.locator(CARDS).first.wait_for()
    in_paris = next(title for title in titles(tab) if int(title.removesuffix(".jpg")) % 4 == 1)
    tab.locator(f"{CARDS}[title='{in_paris}']").click()
    nearby = tab.get_by_role("dialog").get_by_role("button", name="Near this image")
    expect(nearby).to_be_visible()
    assert serious(tab) == []
    nearby.click()
    expect(tab.get_by_role("dialog")).to_have_count(0)
    expect(heading(tab)).to_have_text("16 images")
    assert all(int(title.removesuffix(".jpg")) % 4 == 1 for title in titles(tab))
    expect(tab.get_by_label("Near", exact=True)).to_have_value("48.85840, 2.29450")
    expect(tab.get_by_label("Within (km)")).to_have_value("5")
    expect(tab.get_by_role("button", name="Filters (2)")).to_be_visible()
    tab.wait_for_url("**near=48.85840*")
    tab.go_back()
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    tab.goto(f"{photos_url}?camera=iPhone+15")  # some of them in Sydney, the others without a place
    tab.locator(f"{CARDS}[title='60.jpg']").click()
    expect(tab.get_by_role("dialog").get_by_role("button", name="More like this")).to_be_visible()
    expect(nearby).to_have_count(0)


def test_results_are_put_in_order_of_date(open_tab: Callable[[str], Any], photos_url: str) -> None:
    tab = open_tab(f"{photos_url}?q=a+red+circle")
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    best = titles(tab)
    tab.get_by_label("Sort by").select_option("date")
    tab.wait_for_function(f"() => document.querySelector('{CARDS} .title').textContent !== {best[0]!r}")
    dated = [title for title in titles(tab) if title != "undated.png"]
    assert set(titles(tab)) == set(best) and dated == sorted(dated, reverse=True) != best
    tab.wait_for_url("**sort=date*")


def test_the_large_view_steps_through_all_months(open_tab: Callable[[str], Any], photos_url: str) -> None:
    tab = open_tab(photos_url)
    tab.locator(CARDS).first.click()
    title = tab.get_by_role("dialog").get_by_role("heading", level=2)
    for number in range(63, -1, -1):
        expect(title).to_have_text(f"{number:02}.jpg")
        tab.keyboard.press("ArrowRight")
    expect(title).to_have_text("undated.png")
    expect(tab.get_by_role("button", name="Next image")).to_be_hidden()
    tab.keyboard.press("Escape")
    expect(tab.locator(CARDS).last).to_be_focused()


def test_words_leave_the_browser_and_back_returns(open_tab: Callable[[str], Any], photos_url: str) -> None:
    tab = open_tab(photos_url)
    expect(heading(tab)).to_have_text("All 65 images")
    tab.locator("#words").fill("a red circle")
    expect(heading(tab)).to_have_text("Best matches for “a red circle”")
    expect(tab.locator("#results .timeline")).to_have_count(0)
    tab.go_back()
    expect(heading(tab)).to_have_text("All 65 images")
    tab.locator("#words").focus()
    for _ in range(12):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.classList.contains('card')"):
            break
    for _ in range(60):  # the keyboard alone reaches images that were not in the document
        tab.keyboard.press("Tab")
        tab.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    expect(tab.locator(f"{CARDS}:focus")).to_have_count(1)


@pytest.mark.all_screens
def test_a_hundred_thousand_images_scroll_smoothly(open_tab: Callable[[str], Any], many_url: str) -> None:
    tab = open_tab(many_url)
    expect(heading(tab)).to_have_text("All 100,000 images")
    expect(tab.locator(CARDS).first).to_be_visible()
    for speed in (1_000, 5_000, 50_000):  # pixels per second: reading, skimming, dragging
        rates = []
        while len(rates) < ATTEMPTS and (not rates or max(rates) < MIN_FRAMES_PER_S):
            frames, scrolled = tab.evaluate(FRAMES_PER_S, [speed, 2])
            rates.append(frames)
            assert scrolled > speed  # it really moved, for two seconds
        print(f"{speed} px/s: {max(rates):.0f} frames/s")
        if max(rates) < MIN_FRAMES_PER_S:
            tab.goto(EMPTY_PAGE)
            empty = max(tab.evaluate(FRAMES_PER_S, [speed, 2])[0] for _ in range(ATTEMPTS))
            if empty < MIN_FRAMES_PER_S + 5:
                pytest.skip(f"other work on this machine leaves {empty:.0f} frames a second to an empty page")
        assert max(rates) >= MIN_FRAMES_PER_S, f"{speed} px/s: {rates}"
    assert tab.locator("#results li").count() < 400  # of 100,000
    tab.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(tab.locator("#results h3").last).to_have_text("Without a date")
    expect(tab.locator(CARDS).last).to_have_attribute("title", "099999.jpg")
    tab.get_by_label("Go to").select_option(index=60)
    expect(tab.locator(CARDS).first).to_be_visible()
