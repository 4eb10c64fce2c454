"""Accessibility by axe-core, the keyboard alone, and the installable app."""

import json
from typing import Any

import pytest

from tests.support.axe import serious

expect: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

TABS = ("Search", "Describe", "Map", "Library", "Compare")


@pytest.mark.all_screens
@pytest.mark.parametrize("name", TABS)
def test_axe_finds_nothing_serious(tab: Any, name: str) -> None:
    pytest.importorskip("axe_playwright_python")
    expect(tab.locator("#results .card")).to_have_count(12)
    tab.get_by_role("tab", name=name).click()
    tab.wait_for_load_state("networkidle")
    if name == "Search":
        tab.get_by_role("button", name="Filters", exact=True).click()
    assert serious(tab) == []


@pytest.mark.all_screens
def test_axe_finds_nothing_serious_in_the_large_view(tab: Any) -> None:
    pytest.importorskip("axe_playwright_python")
    tab.locator("#results .card").first.click()
    expect(tab.get_by_role("dialog").get_by_role("heading", level=2)).to_be_visible()
    assert serious(tab) == []


def test_keyboard_alone_searches_opens_and_returns(tab: Any) -> None:
    expect(tab.locator("#results .card")).to_have_count(12)
    tab.locator("#words").focus()
    tab.keyboard.press("ControlOrMeta+a")
    tab.keyboard.type("a red circle")
    tab.keyboard.press("Enter")
    expect(tab.locator("#results h2")).to_have_text("Best matches for “a red circle”")
    for _ in range(30):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.classList.contains('card')"):
            break
    row = tab.evaluate("document.activeElement.dataset.row")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("dialog").get_by_role("heading", level=2)).to_be_visible()
    tab.keyboard.press("Escape")
    assert tab.evaluate("document.activeElement.dataset.row") == row


def test_page_can_be_installed(tab: Any, page_url: str) -> None:
    manifest = tab.locator("link[rel=manifest]").get_attribute("href")
    answer = tab.request.get(f"{page_url}{manifest.lstrip('./')}")
    reported = json.loads(answer.text())
    assert (reported["name"], reported["display"]) == ("MiniCLIP", "standalone")
    assert tab.request.get(f"{page_url}{reported['icons'][0]['src'].lstrip('/')}").ok
