"""The released model on the page: one-word searches get a word for their match, and nothing contradicts it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import DemoProcess

RANK = {"weak": 0, "likely": 1, "strong": 2}
SHOWN = {"dog": "dog", "baby": "baby", "red car": "automobile"}  # a query, and what the title of its first hit contains


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with DemoProcess("--images", "openmoji", "--provider", "cpu") as page:
        yield page.url


@pytest.mark.parametrize("query", SHOWN)
def test_words_for_scores_agree_with_the_numbers(query: str, url: str, open_tab: Callable[[str], Any]) -> None:
    tab = open_tab(f"{url}?q={query}")
    tab.locator("#results h2", has_text=query).wait_for()
    cards = tab.locator("#results .card")
    cards.first.wait_for()
    found = [(card.get_attribute("data-match"), card.get_attribute("data-probability")) for card in cards.all()]
    assert found[0][0] in ("likely", "strong") and SHOWN[query] in cards.first.inner_text().lower()
    numbers = [(RANK[str(word)], float(number or 0)) for word, number in found if number]
    for word, number in numbers:
        for other, less in numbers:
            assert word >= other or number < less, "a higher probability has a weaker word"
