"""Variants of captions, and how training draws them."""

import numpy as np
import pytest

from miniclip.models.config import DataConfig
from train.caption_variants import ARTICLES, is_name, make_variants, name_sentences, shortened


@pytest.mark.parametrize("caption", ["granny smith", "tench", "Alpro blueberry soyghurt"])
def test_a_bare_name_is_a_name(caption: str) -> None:
    assert is_name(caption)


@pytest.mark.parametrize("caption", ["a dog", "A dog runs.", "Dogs run.", "two dogs on a beach"])
def test_a_sentence_is_not_a_name(caption: str) -> None:
    assert not is_name(caption)


def test_a_name_becomes_sentences_with_its_article() -> None:
    assert "a photo of an acorn" in name_sentences("acorn")
    assert "an image of acorn" in name_sentences("acorn")
    assert "an image of a tench" in name_sentences("tench")


def test_a_shortened_sentence_has_only_words_of_the_sentence_in_their_order() -> None:
    caption = "A man in a red shirt climbs the steep rock, alone."
    words = caption.replace(",", "").replace(".", "").split()
    variants = shortened(caption)
    assert variants[0] == "man in red shirt climbs steep rock alone"
    for variant in variants:
        remaining = iter(words)
        assert all(word in remaining for word in variant.split())
    assert shortened(caption) == variants


def test_a_short_sentence_loses_only_its_articles() -> None:
    assert shortened("a photo of a tench") == ["photo of tench"]


def test_variants_are_drawn_with_the_given_probability() -> None:
    captions = ["tench", "A man in a red shirt climbs the steep rock."]
    variants = make_variants(captions, DataConfig(name_templates=True, caption_augment=0.25))
    rows = np.repeat([0, 1], 4000)
    drawn = variants.draw(rows, np.random.default_rng(0))
    texts = [*captions, *variants.texts]
    assert (drawn[:4000] != 0).mean() == pytest.approx(0.5, abs=0.04)
    assert (drawn[4000:] != 1).mean() == pytest.approx(0.25, abs=0.03)
    assert {texts[row] for row in drawn[:4000]} == {"tench", *name_sentences("tench")}
    assert {texts[row] for row in drawn[4000:]} == {captions[1], *shortened(captions[1])}
    assert np.array_equal(drawn, variants.draw(rows, np.random.default_rng(0)))


def test_without_the_options_captions_have_no_variants() -> None:
    variants = make_variants(["tench", "A man climbs."], DataConfig())
    assert variants.texts == []
    assert variants.draw(np.array([1, 0]), np.random.default_rng(0)).tolist() == [1, 0]


def test_articles_are_lower_case() -> None:
    assert all(word == word.lower() for word in ARTICLES)
