"""The Map tab in a real browser. Screens as in test_page.py."""

import re
from typing import Any

import pytest

from tests.support.axe import serious
from tests.support.tabs import asks_for, go

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect


BACKGROUND = "dot => getComputedStyle(dot).backgroundColor.match(/\\d+/g).join()"
# every colour on the map, such as 13,148,136
COLOURS = """() => {
    const canvas = document.querySelector('#map canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const found = new Set();
    for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) found.add(data.slice(at, at + 3).join());
    return [...found];
}"""


@pytest.mark.all_screens
def test_map_shows_every_image_and_opens_one(tab: Any) -> None:
    go(tab, "Map")
    canvas = tab.locator("#map canvas")
    expect(canvas).to_have_attribute("data-dots", "12")
    expect(canvas).to_have_attribute("data-painted", "search")
    expect(canvas).to_have_attribute("data-thumbnails", "12")  # there is enough room, even on a phone
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


def test_a_hidden_map_is_painted_when_it_is_shown_again(tab: Any) -> None:
    go(tab, "Map")
    legend = tab.locator("#map .legend")
    expect(legend).not_to_have_text("")
    asked: list[Any] = []
    tab.on("request", lambda sent: asked.append(sent) if asks_for(sent, "shades") else None)
    go(tab, "Search")
    for words in ("a red circle", "a blue square"):
        tab.locator("#words").fill(words)
        tab.locator("#words").press("Enter")
        expect(tab.locator("#results h2")).to_contain_text(words)
    tab.locator("#results .card").first.wait_for()
    assert asked == []
    go(tab, "Map")
    expect(legend).to_contain_text("a blue square")
    assert len(asked) == 1


@pytest.mark.all_screens
def test_map_is_coloured_by_folder(open_tab: Any, dated_url: str) -> None:
    tab = open_tab(f"{dated_url}?q=photo")
    tab.locator("#results .card").first.wait_for()  # the map is coloured by this search
    go(tab, "Map")
    canvas = tab.locator("#map canvas")
    expect(canvas).to_have_attribute("data-painted", "search")
    by_similarity = tab.evaluate(COLOURS)
    tab.get_by_label("Colour by").select_option("folder")
    expect(canvas).to_have_attribute("data-painted", "folder")
    expect(tab.locator("#map .legend span")).to_have_text(["summer", "winter"])
    legend = set(tab.locator("#map .legend i").evaluate_all(f"dots => dots.map({BACKGROUND})"))
    assert len(legend) == 2
    assert legend <= set(tab.evaluate(COLOURS)) and not legend & set(by_similarity)


def boxes(names: Any) -> list[dict[str, float]]:
    return [one.bounding_box() for one in names.all() if one.is_visible()]


def touch(one: dict[str, float], other: dict[str, float]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "width"), ("y", "height"))
    )


@pytest.mark.all_screens
def test_groups_on_the_map_have_their_names(open_tab: Any, groups_url: str) -> None:
    pytest.importorskip("axe_playwright_python")
    tab = open_tab(groups_url)
    go(tab, "Map")
    names = tab.get_by_role("list", name="Groups of similar images").get_by_role("listitem")
    expect(names).to_have_text(["a hand", "a clock", "a heart", "a smiling face", "fruit"])
    plane = tab.locator("#map .plane").bounding_box()
    for box in boxes(names):
        assert touch(box, plane) and box["x"] >= plane["x"]
        assert box["x"] + box["width"] <= plane["x"] + plane["width"]
    assert serious(tab) == []


@pytest.mark.all_screens
def test_names_on_the_map_never_touch_and_zooming_shows_more(open_tab: Any, groups_url: str) -> None:
    tab = open_tab(groups_url)
    places = [(column / 4 - 0.625, row / 5 - 0.3) for row in range(4) for column in range(6)]
    many = [
        {"name": f"{kind} {number}", "x": x, "y": y + shift, "size": 9}
        for kind, shift in (("large", 0.0), ("small", 0.04))
        for number, (x, y) in enumerate(places)
    ]

    def answer(route: Any) -> None:
        if not asks_for(route.request, "points"):
            return route.continue_()
        answered = route.fetch().json()
        return route.fulfill(json={**answered, "clusters": many})

    tab.route("**/component_server/", answer)
    go(tab, "Map")
    names = tab.locator("#map .names li")
    expect(names.nth(0)).to_be_visible()
    shown = boxes(names)
    assert not any(touch(one, other) for place, one in enumerate(shown) for other in shown[:place])
    assert len(shown) == (8 if tab.viewport_size["width"] < 600 else 20)
    assert not any(name.is_visible() for name in names.filter(has_text="small").all())
    for _ in range(4):
        tab.get_by_role("button", name="Zoom in").click()
    expect(tab.locator("#map canvas")).to_have_attribute("data-zoom", "5.06")
    assert any(name.is_visible() for name in names.filter(has_text="small").all())
    tab.unroute_all(behavior="wait")


@pytest.mark.slow
def test_umap_is_a_second_layout(tab: Any) -> None:
    pytest.importorskip("umap", reason='UMAP is not installed; get it with: pip install "miniclip[map]"')
    go(tab, "Map")
    canvas = tab.locator("#map canvas")
    expect(canvas).to_have_attribute("data-layout", "pca")
    first = canvas.evaluate("canvas => canvas.toDataURL()")
    tab.get_by_label("Layout").select_option("umap")
    # the first time, its code is compiled
    expect(canvas).to_have_attribute("data-layout", "umap", timeout=120_000)
    expect(canvas).to_have_attribute("data-dots", "12")
    expect(tab.locator("#map .notice")).to_have_text("")
    assert canvas.evaluate("canvas => canvas.toDataURL()") != first
