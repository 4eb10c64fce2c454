"""The page in a German browser: no English word, nothing wider than the screen, and accessible.

The same walk through the page in both languages collects everything that a user can read or hear. A text that is equal
in both is data, such as a file name, or a word that was not translated.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.i18n import TABLES
from tests.e2e.conftest import DemoProcess, strict_copy, watched_tab
from tests.support.axe import serious
from tests.support.photos import write_photo

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

# texts and attributes of all elements, hidden ones, too; example queries and labels are words that the model knows
SHOWN = """() => {
    const shown = new Set();
    const add = (text) => { if (/[a-z]{2}/i.test(text ?? '')) shown.add(text.trim().replace(/\\s+/g, ' ')); };
    for (const element of document.querySelectorAll('body *:not(script, style, .examples *, .bars .caption)')) {
        for (const name of ['alt', 'aria-label', 'placeholder', 'title']) add(element.getAttribute(name));
        for (const node of element.childNodes) if (node.nodeType === Node.TEXT_NODE) add(node.data);
    }
    return [...shown];
}"""
# equal in all languages: names of files, folders and models, what the user typed, units, and the library's reasons
DATA = re.compile(
    r"\.(jpg|webp)\b|/|^\d+ MB$|^(summer|winter|strict|miniclip-s|fp32|fp16|int8|strict · \w+|a red circle)$"
    r"|^(Canon|jpeg|not an image in a known format) ?|^(MiniCLIP|PCA|JSON|CSV|Details \(I\))$"
)
GRADIO_OWN = {"More tabs"}  # it has no translation; the button is hidden where all tabs fit
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
Look = Callable[[], None]


def walk(tab: Any, look: Look, folder: Path) -> None:
    """Everything on the page once. No step depends on the language."""
    expect(tab.locator("#results .timeline .card")).to_have_count(4)
    tab.locator(".toggle").click()
    look()
    tab.locator("[name=near]").fill("Paris")
    expect(tab.locator("#results .message")).to_be_visible()
    look()
    tab.locator(".clear").click()
    tab.locator(".toggle").click()
    tab.locator("#words").fill("красный круг")
    expect(tab.locator("#results .note")).to_have_count(3)  # no match, the language, a deleted image
    look()
    tab.locator("#words").fill("a red circle")
    expect(tab.locator("#results .note")).to_have_count(2)
    tab.locator(".numbers-toggle").click()
    for part in (large_view, saved_search, selection, wrong_upload, describe, map_of_images, library, compare):
        part(tab, look, folder)


def large_view(tab: Any, look: Look, folder: Path) -> None:
    tab.locator("#results .card").first.click()
    tab.locator("[data-action=why]").click()
    expect(tab.locator("#detail-dialog .notice")).to_have_text(re.compile(r"\.$"))
    look()
    tab.locator("#detail-dialog button[data-action=view]").click()
    tab.locator("[data-tool=info]").click()
    expect(tab.locator("#viewer-info dd").first).to_be_visible()
    look()
    tab.locator("[data-tool=close]").click()
    tab.locator("[data-action=like]").click()
    expect(tab.locator("#search .with")).to_be_visible()
    look()
    tab.locator("#search .remove").click()
    tab.locator("#words").fill("a red circle")
    expect(tab.locator("#results .note")).to_have_count(2)


def saved_search(tab: Any, look: Look, folder: Path) -> None:
    tab.locator(".save-search").click()
    tab.locator("#save-dialog .primary").click()
    expect(tab.locator("#saved summary, #search .saved summary")).to_be_visible()
    tab.locator(".save-search").click()
    tab.locator("#save-dialog .primary").click()
    expect(tab.locator("#save-dialog .notice")).not_to_have_text("")
    look()
    tab.locator("#save-dialog [data-step=cancel]").click()


def selection(tab: Any, look: Look, folder: Path) -> None:
    tab.locator(".select-toggle").click()
    tab.locator("[data-do=all]").click()
    look()
    tab.locator("[data-do=copy]").click()
    tab.locator("#action-dialog [name=folder]").fill(str(folder))
    tab.locator("#action-dialog .primary").click()
    expect(tab.locator("#action-dialog .sum")).to_be_visible()
    look()
    tab.locator("#action-dialog .primary").click()
    expect(tab.locator("#action-dialog [data-step=undo]")).to_be_visible()
    look()
    tab.locator("#action-dialog [data-step=undo]").click()
    expect(tab.locator("#action-dialog .sum")).to_be_visible()
    look()
    tab.locator("#action-dialog [data-step=cancel]").click()


def wrong_upload(tab: Any, look: Look, folder: Path) -> None:
    file = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no image"}
    tab.locator("#search input[type=file]").set_input_files(file)
    expect(tab.locator("#results .message")).to_be_visible()
    look()


def open_part(tab: Any, name: str) -> Any:
    tab.evaluate("name => window.miniclip.show(name)", name)
    part = tab.locator(f"#{name}")
    expect(part).to_be_visible()
    return part


def describe(tab: Any, look: Look, folder: Path) -> None:
    part = open_part(tab, "describe")
    part.locator("summary").click()
    part.locator(".picks button").first.click()
    expect(part.locator(".labelled .bars")).to_be_visible()
    look()
    part.locator("[name=labels]").fill("one")
    part.locator("form button").click()
    expect(part.locator(".labelled .message")).to_be_visible()
    look()


def map_of_images(tab: Any, look: Look, folder: Path) -> None:
    part = open_part(tab, "map")
    expect(part.locator("canvas")).to_have_attribute("data-painted", "search")
    look()
    part.locator("[name=colour]").select_option("folder")
    expect(part.locator("canvas")).to_have_attribute("data-painted", "folder")
    look()


def library(tab: Any, look: Look, folder: Path) -> None:
    part = open_part(tab, "library")
    part.locator("form.twice button").click()
    expect(part.locator(".groups")).to_be_visible()
    look()
    part.locator("form.index [name=folder]").fill(str(folder / "none"))
    part.locator("form.index button").click()
    expect(part.locator(".job .message")).to_be_visible()
    look()


def compare(tab: Any, look: Look, folder: Path) -> None:
    part = open_part(tab, "compare")
    look()
    part.locator("button").click()
    expect(part.locator(".columns")).to_be_visible()
    look()


@pytest.fixture(scope="module")
def gallery_url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of four photographs in two folders, two of them equal, one with a place, one that was deleted since."""
    folder = tmp_path_factory.mktemp("languages") / "photos"
    write_photo(folder / "summer/beach.jpg", ("Canon", "EOS R5"), "2024:07:01 12:00:00", (48.86, 2.29), 4, colour="red")
    write_photo(folder / "summer/lake.jpg", taken="2024:07:15 12:00:00", colour="blue")
    write_photo(folder / "winter/snow.jpg", taken="2024:01:20 12:00:00", colour="green")
    write_photo(folder / "winter/ice.jpg", colour="white")
    shutil.copy(folder / "winter/snow.jpg", folder / "winter/snow again.jpg")
    (folder / "winter/broken.jpg").write_bytes(b"no image")
    bundle = strict_copy(tiny_bundle, folder.parent / "strict")
    with DemoProcess("--images", str(folder), "--bundle", str(bundle), "--provider", "cpu") as process:
        (folder / "winter/ice.jpg").unlink()
        yield process.url


@pytest.fixture(scope="module")
def english_texts(browser: Any, gallery_url: str, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    texts: set[str] = set()
    with watched_tab(browser, "desktop") as tab:
        tab.goto(gallery_url)
        walk(tab, lambda: texts.update(tab.evaluate(SHOWN)), tmp_path_factory.mktemp("english"))
    return texts


@pytest.mark.parametrize("screen", ["phone-light", "desktop-dark"])
def test_a_german_browser_shows_no_english_word(
    browser: Any, gallery_url: str, english_texts: set[str], tmp_path: Path, screen: str
) -> None:
    texts, problems = set[str](), list[str]()
    with watched_tab(browser, screen, "de-DE") as tab:

        def look() -> None:
            texts.update(tab.evaluate(SHOWN))
            problems.extend(serious(tab))
            if (overflow := tab.evaluate(OVERFLOW)) > 0:
                problems.append(f"{overflow} px wider than the screen")

        tab.goto(gallery_url)
        walk(tab, look, tmp_path)
        assert tab.evaluate("document.documentElement.lang") == "de"
    assert problems == []
    both = {english for key, english in TABLES["en"].items() if english == TABLES["de"][key]} | GRADIO_OWN
    assert sorted(texts & set(TABLES["en"].values()) - both) == []
    assert sorted(text for text in texts & english_texts - both if not DATA.search(text)) == []


def test_another_language_than_the_tables_have_shows_english(browser: Any, gallery_url: str) -> None:
    with watched_tab(browser, "desktop", "fr-FR") as tab:
        tab.goto(gallery_url)
        expect(tab.locator("#results h2")).to_have_text("All 4 images")
        expect(tab.get_by_role("tab", name="Library")).to_be_visible()
        expect(tab.locator("#words")).to_have_attribute("placeholder", TABLES["en"]["ask"])
        expect(tab.locator("html")).to_have_attribute("lang", "en")


DRAG_A_FILE = """() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File(['image'], 'image.png'));
    document.dispatchEvent(new DragEvent('dragover', { dataTransfer, cancelable: true }));
    return getComputedStyle(document.body, '::after').content;
}"""


def test_the_invitation_to_drop_an_image_is_german(browser: Any, gallery_url: str) -> None:
    with watched_tab(browser, "desktop", "de-DE") as tab:
        tab.goto(gallery_url)
        expect(tab.locator("#words")).to_be_visible()
        assert tab.evaluate(DRAG_A_FILE) == '"Bild irgendwo ablegen"'
