"""Shared by tests of search: a searcher on the tiny index."""

from pathlib import Path

import pytest

from miniclip.search.searcher import Searcher


@pytest.fixture(scope="module")
def searcher(tiny_index: Path, tiny_bundle: Path) -> Searcher:
    return Searcher.open(tiny_index, provider="cpu")
