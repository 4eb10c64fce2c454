"""Searching: order, bounds, and that every way of asking agrees. The model is tiny: no test asks what it understood."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from miniclip.errors import MiniClipError
from miniclip.index import Captions
from miniclip.search import Hit, Searcher


@pytest.fixture(scope="module")
def searcher(tiny_index: Path, tiny_bundle: Path) -> Searcher:
    return Searcher.open(tiny_index, provider="cpu")


def test_words_find_every_picture_best_first(searcher: Searcher) -> None:
    hits = searcher.by_text("a red circle on white", 100)
    assert sorted(hit.row for hit in hits) == list(range(12))
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and -1.001 <= scores[-1] < scores[0] <= 1.001
    similarity = searcher.encoders.encode_texts(["a red circle on white"]) @ searcher.index.image_embeds.T  # (1, 12)
    assert scores == pytest.approx(np.sort(similarity[0])[::-1].tolist(), abs=1e-5)
    for hit in hits:
        assert (hit.path, hit.captions) == (searcher.index.paths[hit.row], searcher.index.captions[hit.row])
        assert hit.path.stem.split("-")[1] in hit.captions[0]


def test_top_k_takes_the_first_of_the_same_list(searcher: Searcher) -> None:
    everything = searcher.by_text("blue square", 12)
    for top_k in (1, 5, 12, 1000):
        assert searcher.by_text("blue square", top_k) == everything[:top_k]
    assert searcher.by_text("blue square", 0) == []


def test_case_of_words_does_not_matter_to_this_tokenizer(searcher: Searcher) -> None:
    assert searcher.by_text("RED circle") == searcher.by_text("red circle") != searcher.by_text("cat")


def test_indexed_picture_finds_itself_first(searcher: Searcher) -> None:
    for row, path in enumerate(searcher.index.paths):
        by_image, by_row = searcher.by_image(path, 3), searcher.by_row(row, 3)
        assert by_image[0].row == by_row[0].row == row
        assert by_image[0].score == pytest.approx(1, abs=2e-3)
    assert searcher.by_image(path.read_bytes(), 3) == by_image


def test_captions_of_a_picture_are_each_shown_once_best_first(searcher: Searcher) -> None:
    hits = searcher.captions_for(searcher.index.paths[0], 100)
    every = {caption for own in searcher.index.captions for caption in own}
    assert sorted(hit.caption for hit in hits) == sorted(every) and len(every) == 24
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.caption in searcher.index.captions[hit.row] for hit in hits)
    assert searcher.captions_for(searcher.index.paths[0], 3) == hits[:3]


def test_caption_that_all_pictures_share_does_not_crowd_out_the_others(searcher: Searcher) -> None:
    shared = [["a photo", f"number {row}"] for row in range(12)]
    crowded = Searcher(dataclasses.replace(searcher.index, captions=Captions.of(shared)), searcher.encoders)
    found = [hit.caption for hit in crowded.captions_for(searcher.index.paths[0], 5)]
    assert len(found) == len(set(found)) == 5


def test_index_without_captions_has_none(searcher: Searcher) -> None:
    bare = Searcher(dataclasses.replace(searcher.index, captions=Captions.of([[]] * 12)), searcher.encoders)
    assert (searcher.has_captions, bare.has_captions) == (True, False)
    assert bare.captions_for(searcher.index.paths[0]) == []


@pytest.mark.parametrize("words", ["", "   ", "\n\t"])
def test_empty_words_are_an_error(searcher: Searcher, words: str) -> None:
    with pytest.raises(MiniClipError, match="the query is empty; type what the picture should show"):
        searcher.by_text(words)


@pytest.mark.parametrize("words", ["🐕", "\udcff", "'; drop table pictures; --", "dog " * 3000, "[PAD]", "\x00"])
def test_no_words_are_a_traceback(searcher: Searcher, words: str) -> None:
    assert len(searcher.by_text(words)) == 10


def test_picture_that_cannot_be_read_is_an_error(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    for ask in (searcher.by_image, searcher.captions_for):
        with pytest.raises(MiniClipError, match=r"text\.jpg: not a picture in a known format"):
            ask(tmp_path / "text.jpg")


def test_index_of_another_bundle_is_refused(searcher: Searcher) -> None:
    with pytest.raises(MiniClipError, match="was made by another bundle"):
        Searcher(dataclasses.replace(searcher.index, fingerprint="0" * 64), searcher.encoders)


def test_questions_from_many_threads_get_the_same_answers(searcher: Searcher) -> None:
    questions = ["red circle", "a dog", "photo of the blue triangle", "two cats on white"]
    serial: list[list[Hit]] = [searcher.by_text(words) for words in questions]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(searcher.by_text, questions * 10)) == serial * 10
