"""Queries that an English model cannot understand get a hint; all others get none."""

from pathlib import Path

import pytest

from miniclip.inference.tokenizer import Tokenizer
from miniclip.search.language import HINT, language_hint

RELEASED = Path(__file__).parents[2] / "models" / "miniclip-s"


@pytest.fixture(scope="module")
def english() -> Tokenizer:
    return Tokenizer.from_folder(RELEASED)


@pytest.mark.parametrize("words", ["собака на пляже", "海辺の犬", "كلب على الشاطئ", "σκύλος", "คน", "강아지 dog"])
def test_other_scripts_get_the_hint(words: str, english: Tokenizer) -> None:
    assert language_hint([words], english) == HINT


@pytest.mark.parametrize("words", ["a dog", "café", "Straße", "2024", "", "🐶", "dog собака puppy"])
def test_mostly_latin_words_get_none(words: str, english: Tokenizer) -> None:
    assert language_hint([words], english) is None


def test_a_multilingual_vocabulary_gets_none(english: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "highest_id", 250_001)
    assert language_hint(["собака"], english) is None
