"""Faults that users of the page met, each with a test in a browser. Screens as in test_page.py."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.conftest import DemoProcess
from tests.support.drawing import draw_image

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect
CARDS = "#results .card"


def go(tab: Any, name: str) -> None:
    tab.get_by_role("tab", name=name).click()


@pytest.fixture
def images(image_folder: Path, tmp_path: Path) -> Path:
    """Three images that a test may change."""
    (tmp_path / "photos").mkdir()
    for path in sorted(image_folder.glob("*.png"))[:3]:
        shutil.copy(path, tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def own_page(tiny_bundle: Path, images: Path, tmp_path: Path) -> Iterator[str]:
    """A page that a test may change, with the only bundle of its folder."""
    shutil.copytree(tiny_bundle, tmp_path / "alone" / "tiny")
    with DemoProcess(
        "--images", str(images), "--bundle", str(tmp_path / "alone" / "tiny"), "--provider", "cpu"
    ) as page:
        yield page.url


def test_an_image_alone_is_searched_without_the_example_that_was_filled_in(tab: Any, image_folder: Path) -> None:
    assert tab.locator("#words").input_value() != ""
    tab.locator("#search input[type=file]").set_input_files(next(image_folder.rglob("*.png")))
    expect(tab.locator("#results h2")).to_have_text("Most similar to your image")
    expect(tab.locator("#words")).to_have_value("")


def test_words_that_the_user_typed_are_kept_with_an_image(tab: Any, image_folder: Path) -> None:
    tab.locator("#words").fill("a red circle")
    expect(tab.locator("#results h2")).to_have_text("Best matches for “a red circle”")
    tab.locator("#search input[type=file]").set_input_files(next(image_folder.rglob("*.png")))
    expect(tab.locator("#results h2")).to_have_text("“a red circle”, and like your image")


def test_a_typed_path_keeps_its_first_letter(open_tab: Any, own_page: str) -> None:
    tab = open_tab(own_page)
    go(tab, "Library")
    tab.get_by_label("Folder with images on this machine").fill("no-such-folder/photos")
    tab.get_by_role("button", name="Index and open it").click()
    expect(tab.locator(".job .message")).to_contain_text("Indexing no-such-folder/photos failed: ")
    tab.goto("about:blank")


def test_another_gallery_is_opened_at_once_and_everywhere(
    open_tab: Any, own_page: str, captioned_folder: Path, tmp_path: Path
) -> None:
    tab = open_tab(own_page)
    other = tab.context.new_page()
    other.goto(own_page)
    for one in (tab, other):
        expect(one.locator(CARDS)).to_have_count(3)
    go(tab, "Map")
    expect(tab.locator("#map canvas")).to_have_attribute("data-dots", "3")
    go(tab, "Describe")
    expect(tab.locator(".picks button")).to_have_count(3)
    go(tab, "Library")
    tab.get_by_label("Folder with images on this machine").fill(str(captioned_folder))
    tab.get_by_role("button", name="Index and open it").click()
    expect(tab.locator(CARDS)).to_have_count(24)  # the Search tab shows the new gallery
    expect(tab.locator(CARDS).first).to_be_visible()
    expect(tab.locator("#status-line")).to_contain_text("120 images")
    go(tab, "Map")
    expect(tab.locator("#map canvas")).to_have_attribute("data-dots", "120")
    go(tab, "Describe")
    expect(tab.locator(".picks button")).to_have_count(8)

    other.locator(CARDS).first.click()  # an outdated page says so and offers the new gallery
    dialog = other.get_by_role("dialog")
    expect(dialog).to_contain_text("Another gallery has been opened")
    dialog.get_by_role("button", name="Show the new gallery").click()
    expect(dialog).to_be_hidden()
    expect(other.locator(CARDS)).to_have_count(24)
    other.locator(CARDS).first.click()
    expect(dialog.get_by_role("heading", level=2)).to_be_visible()
    other.goto("about:blank")
    tab.goto("about:blank")


def test_icons_of_fields_follow_the_dark_theme(tab: Any) -> None:
    is_dark = tab.evaluate("document.body.classList.contains('dark')")
    for field in ("#words", "[name=after]"):
        scheme = tab.locator(f"#search {field}").evaluate("field => getComputedStyle(field).colorScheme")
        assert ("dark" in scheme) == is_dark, (field, scheme)


def test_a_model_is_not_compared_with_itself(tab: Any) -> None:
    go(tab, "Compare")
    for choice in ("tiny · fp32", "tiny · int8"):
        tab.get_by_label("First").select_option(choice)
        others = tab.get_by_label("Second").locator("option").all_text_contents()
        assert choice not in others and others


def test_a_single_model_says_how_to_get_another(open_tab: Any, tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "single" / "tiny"
    shutil.copytree(tiny_bundle, bundle, ignore=shutil.ignore_patterns("*_fp16.onnx", "*_quantized.onnx"))
    with DemoProcess("--images", str(images), "--bundle", str(bundle), "--provider", "cpu") as page:
        tab = open_tab(page.url)
        go(tab, "Compare")
        expect(tab.get_by_role("button", name="Compare", exact=True)).to_be_disabled()
        # models in the checkout have no index of these images yet
        expect(tab.locator(".compared")).to_contain_text(re.compile("press “Use” beside|There is only one model here"))
        tab.goto("about:blank")


def test_the_bars_of_captions_are_as_long_as_their_scores(tab: Any) -> None:
    tab.locator(CARDS).first.click()
    tab.get_by_role("dialog").get_by_role("button", name="Describe it").click()
    bars = tab.locator("#describe .found .bars li")
    expect(bars).not_to_have_count(0)
    for bar in bars.all():
        score = float(bar.locator(".score").inner_text())
        share = bar.locator(".bar").evaluate("bar => parseFloat(bar.style.getPropertyValue('--share'))")
        assert share == pytest.approx(100 * max(score, 0), abs=1)


def test_the_map_shows_thumbnails_when_zoomed_in_and_names_of_places(open_tab: Any, captioned_url: str) -> None:
    tab = open_tab(captioned_url)
    answers: list[Any] = []
    tab.on("response", lambda answer: answers.append(answer) if "component_server" in answer.url else None)
    expect(tab.locator(CARDS)).to_have_count(24)
    go(tab, "Map")
    canvas = tab.locator("#map canvas")
    expect(canvas).to_have_attribute("data-painted", "search")
    points = [answer.json() for answer in answers if answer.request.post_data_json["fn_name"] == "points"]
    assert len({cluster["name"] for cluster in points[0]["clusters"]}) >= 2
    expect(canvas).to_have_attribute("data-thumbnails", "0")
    for _ in range(3):
        tab.get_by_role("button", name="Zoom in").click()
    expect(canvas).not_to_have_attribute("data-thumbnails", "0")


def test_deleted_images_are_left_out_and_counted(open_tab: Any, own_page: str, images: Path) -> None:
    tab = open_tab(own_page)
    expect(tab.locator(CARDS)).to_have_count(3)
    min(images.iterdir()).unlink()
    tab.locator("#words").fill("a red circle")
    expect(tab.locator(CARDS)).to_have_count(2)
    expect(tab.locator("#results .note").last).to_have_text("Left out: 1 image whose file no longer exists.")
    tab.goto("about:blank")


def words_and_numbers(tab: Any) -> list[tuple[str, float]]:
    found = []
    for card in tab.locator(CARDS).all():
        found.append((card.get_attribute("data-match"), float(card.get_attribute("data-probability"))))
    return found


def test_words_for_scores_follow_the_order_and_nothing_matches_means_all_are_weak(
    open_tab: Any, page_url: str, dated_url: str
) -> None:
    ranks = {"strong": 2, "likely": 1, "weak": 0}
    for url, is_strict in ((page_url, False), (dated_url, True)):  # with the second bundle, no query ever matches
        tab = open_tab(f"{url}?q=a+red+circle")
        expect(tab.locator("#results h2")).to_have_text("Best matches for “a red circle”")
        found = words_and_numbers(tab)
        assert [ranks[word] for word, _ in found] == sorted((ranks[word] for word, _ in found), reverse=True)
        assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)
        all_weak = all(word == "weak" for word, _ in found) and tab.locator(f"{CARDS} .by-name").count() == 0
        assert (tab.get_by_text("Nothing here matches well").count() == 1) == all_weak
        assert all_weak or not is_strict


def test_images_are_found_by_name_unless_names_are_ignored(open_tab: Any, dated_url: str) -> None:
    tab = open_tab(f"{dated_url}?q=lake")
    first = tab.locator(CARDS).first
    expect(first.locator(".title")).to_have_text("lake.jpg")
    expect(tab.locator(f"{CARDS} .by-name")).to_have_count(1)
    expect(tab.get_by_text("Nothing here matches well")).to_have_count(0)
    tab.get_by_role("button", name="Filters", exact=True).click()
    tab.get_by_label("Ignore names").check()
    expect(tab.locator(f"{CARDS} .by-name")).to_have_count(0)
    expect(tab.get_by_text("Nothing here matches well")).to_have_count(1)
    assert "unnamed=1" in tab.url


def test_numbers_are_shown_on_demand_and_the_choice_is_kept(tab: Any) -> None:
    scores = tab.locator(f"{CARDS} .score")
    expect(scores.first).to_be_hidden()
    tab.get_by_role("button", name="Scores").click()
    expect(scores.first).to_be_visible()
    tab.reload()
    expect(scores.first).to_be_visible()
    tab.get_by_role("button", name="Scores").click()
    expect(scores.first).to_be_hidden()


def test_a_browser_that_stores_nothing_still_searches_and_shows_scores(tab: Any) -> None:
    refuse = "() => { throw new DOMException('denied', 'SecurityError'); }"
    tab.add_init_script(f"Storage.prototype.getItem = Storage.prototype.setItem = {refuse}")
    tab.reload()
    tab.locator(".save-search").click()
    tab.locator("#save-dialog .primary").click()
    expect(tab.locator("#save-dialog .notice")).to_have_text("This browser does not store data for this page.")
    tab.locator("#save-dialog [data-step=cancel]").click()
    tab.locator(".numbers-toggle").click()
    expect(tab.locator(".card .score").first).to_be_visible()


def test_a_query_of_words_and_image_has_no_match_word(tab: Any) -> None:
    tab.locator("#words").fill("a red circle")
    expect(tab.locator("#results h2")).to_have_text("Best matches for “a red circle”")
    tab.locator(CARDS).nth(2).click()
    tab.get_by_role("dialog").get_by_role("button", name="Add to the search").click()
    expect(tab.locator("#results h2")).to_contain_text("and like")
    expect(tab.locator(f"{CARDS} .match")).to_have_count(0)


def test_an_internal_error_is_named_as_one(tab: Any) -> None:
    answer = {"message": "Internal error: the server's log has the details."}
    tab.route("**/component_server/", lambda route: route.fulfill(json=answer))
    tab.locator("#words").fill("a dog")
    expect(tab.locator("#results .message")).to_have_text(answer["message"])


def test_an_upload_above_the_limit_is_refused_before_it_is_sent(tab: Any, tmp_path: Path) -> None:
    stream = io.BytesIO()
    draw_image("red", "circle").save(stream, "PNG")
    (tmp_path / "large.png").write_bytes(stream.getvalue() + bytes(21 << 20))
    sent: list[str] = []
    tab.on("request", lambda request: sent.append(request.url) if "upload" in request.url else None)
    tab.locator("#search input[type=file]").set_input_files(tmp_path / "large.png")
    expect(tab.locator("#results .message")).to_have_text("This image is larger than 20 MB.")
    assert sent == []


def test_downloads_equal_the_shown_results(tab: Any) -> None:
    titles = tab.locator(f"{CARDS} .title").all_text_contents()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download the results as JSON").click()
    results = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["results"]
    assert [one["captions"][0] for one in results] == titles
    assert Image.open(io.BytesIO(tab.request.get(tab.locator(f"{CARDS} img").first.evaluate("i => i.src")).body()))
