"""Search: order, bounds, and agreement of all kinds of queries. No test depends on what the tiny model understood."""

import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniclip.cli.main import run
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.search.duplicates import find_duplicates
from miniclip.search.query import Query
from miniclip.search.searcher import Hit, Searcher
from miniclip.search.zero_shot import classify, label_embeds
from tests.support.drawing import draw_image
from tests.support.searching import searcher

__all__ = ["searcher"]  # a fixture


def test_words_find_every_image_best_first(searcher: Searcher) -> None:
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


def test_this_tokenizer_ignores_case(searcher: Searcher) -> None:
    assert searcher.by_text("RED circle") == searcher.by_text("red circle") != searcher.by_text("cat")


def test_indexed_image_finds_itself_first(searcher: Searcher) -> None:
    for row, path in enumerate(searcher.index.paths):
        by_image, by_row = searcher.by_image(path, 3), searcher.by_row(row, 3)
        assert by_image[0].row == by_row[0].row == row
        assert by_image[0].score == pytest.approx(1, abs=2e-3)
    assert searcher.by_image(path.read_bytes(), 3) == by_image


@pytest.mark.parametrize("words", ["", "   ", "\n\t"])
def test_empty_words_are_an_error(searcher: Searcher, words: str) -> None:
    with pytest.raises(MiniClipError, match="the query is empty; type what the image should show"):
        searcher.by_text(words)


@pytest.mark.parametrize("words", ["🐕", "\udcff", "'; drop table images; --", "dog " * 3000, "[PAD]", "\x00"])
def test_no_query_gives_a_traceback(searcher: Searcher, words: str) -> None:
    assert len(searcher.by_text(words)) == 10


def test_image_that_cannot_be_read_is_an_error(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    for ask in (searcher.by_image, searcher.captions_for):
        with pytest.raises(MiniClipError, match=r"text\.jpg: not an image in a known format"):
            ask(tmp_path / "text.jpg")


def test_index_of_another_bundle_is_refused(searcher: Searcher) -> None:
    other = dataclasses.replace(searcher.index, fingerprint="0" * 64, bundle_folder=Path("other"))
    with pytest.raises(MiniClipError, match="was made by another bundle; search with --bundle other"):
        Searcher(other, searcher.encoders)


def test_queries_from_many_threads_get_the_same_answers(searcher: Searcher) -> None:
    questions = ["red circle", "a dog", "photo of the blue triangle", "two cats on white"]
    serial: list[list[Hit]] = [searcher.by_text(words) for words in questions]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(searcher.by_text, questions * 10)) == serial * 10


# composed queries


def test_several_phrasings_are_averaged(searcher: Searcher) -> None:
    texts = ("a red circle", "photo of the red circle")
    mean = searcher.encoders.encode_texts(texts).mean(axis=0)
    scores = searcher.index.image_embeds @ (mean / np.linalg.norm(mean))
    hits = searcher.search(Query(texts=texts, top_k=12)).hits
    assert [hit.score for hit in hits] == pytest.approx(np.sort(scores)[::-1].tolist(), abs=1e-5)


def test_the_weight_shifts_from_image_to_words(searcher: Searcher) -> None:
    def order(query: Query) -> list[int]:
        return [hit.row for hit in searcher.search(query).hits]

    image, words = searcher.index.paths[0], ("a blue triangle",)
    both = {weight: order(Query(words, (image,), text_weight=weight)) for weight in (0.0, 0.5, 1.0)}
    assert both[0.0] == order(Query(images=(image,))) and both[1.0] == order(Query(words))
    assert both[0.0] != both[1.0]


def test_minus_lowers_unwanted_images(searcher: Searcher) -> None:
    plain = {hit.row: hit.score for hit in searcher.search(Query(("a red circle",), top_k=12)).hits}
    less = {hit.row: hit.score for hit in searcher.search(Query(("a red circle",), minus=("circle",), top_k=12)).hits}
    circles = searcher.index.image_embeds @ searcher.encoders.encode_texts(["circle"])[0]
    change = np.array([less[row] - plain[row] for row in range(12)])
    assert np.corrcoef(change, circles)[0, 1] < 0  # the most similar images fall most


def test_more_like_this_excludes_the_image_itself(searcher: Searcher) -> None:
    hits = searcher.search(Query(rows=(3,), top_k=12)).hits
    assert [hit.row for hit in hits] == [hit.row for hit in searcher.by_row(3, 12) if hit.row != 3]
    assert all(hit.probability is None for hit in hits)


@pytest.fixture
def sorted_away(searcher: Searcher, tmp_path: Path) -> Searcher:
    """Four images in two folders: one has a copy, and some have a date."""
    for folder, name, colour, taken in (
        ("a", "x.png", "red", "2020:05:01 10:00:00"),
        ("a", "y.png", "blue", "2021:05:01 23:59:59"),
        ("ab", "x copy.png", "red", "2020:05:01 10:00:00"),
        ("ab", "z.png", "green", None),
    ):
        (tmp_path / "p" / folder).mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if taken:
            exif[0x0132] = taken
        draw_image(colour, "circle").save(tmp_path / "p" / folder / name, exif=exif)
    update_index(str(tmp_path / "p"), searcher.encoders, tmp_path / "index")
    return Searcher(ImageIndex.open(tmp_path / "index"), searcher.encoders)


def names(searcher: Searcher, **limits: object) -> set[str]:
    return {hit.path.name for hit in searcher.search(Query(("a circle",), **limits)).hits}  # type: ignore[arg-type]


def test_filters_by_folder_and_days(sorted_away: Searcher, tmp_path: Path) -> None:
    assert names(sorted_away) == {"x.png", "y.png", "x copy.png", "z.png"}
    assert names(sorted_away, folder=tmp_path / "p/a") == {"x.png", "y.png"}  # and not "ab"
    assert names(sorted_away, after=date(2021, 1, 1)) == {"y.png"}
    assert names(sorted_away, before=date(2021, 5, 1)) == {"x.png", "x copy.png", "y.png"}  # including that day
    assert names(sorted_away, after=date(2020, 5, 1), before=date(2020, 5, 1)) == {"x.png", "x copy.png"}
    assert names(sorted_away, folder=tmp_path / "nowhere") == set()
    assert names(sorted_away, folder=tmp_path / "p/ab", before=date(2021, 1, 1)) == {"x copy.png"}


def test_distinct_shows_each_image_once(sorted_away: Searcher, tmp_path: Path) -> None:
    assert names(sorted_away, distinct=True) == {"x.png", "y.png", "z.png"}
    assert names(sorted_away, distinct=True, folder=tmp_path / "p/ab") == {"x copy.png", "z.png"}
    row = sorted_away.index.row_of(tmp_path / "p/a/x.png")
    assert row is not None
    like = sorted_away.search(Query(rows=(row,), distinct=True)).hits
    assert {hit.path.name for hit in like} == {"y.png", "z.png"}


def test_the_probability_depends_only_on_the_words(searcher: Searcher) -> None:
    match = searcher.match
    assert match is not None and match.slope > 0 and match.split == "val"
    answer = searcher.search(Query(("a red circle",), top_k=12))
    words = searcher.encoders.encode_texts(["a red circle"])[0]
    expected = match.probability(searcher.index.image_embeds @ words, words)
    assert [hit.probability for hit in answer.hits] == pytest.approx(
        [expected[hit.row] for hit in answer.hits], abs=1e-5
    )
    assert answer.is_calibrated and answer.nothing_matches == bool(
        (expected < match.cutoff_probability(len(searcher.index))).all()
    )


def test_order_and_probability_agree_for_every_query(searcher: Searcher) -> None:
    for names in (True, False):
        likely = [hit.probability or 0 for hit in searcher.search(Query(("a red circle",), names=names, top_k=12)).hits]
        assert likely == sorted(likely, reverse=True)
    image = searcher.index.paths[0]
    for mixed in (Query(("a red circle",), images=(image,)), Query(("a circle",), minus=("red",))):
        answer = searcher.search(mixed)
        assert all(hit.probability is None for hit in answer.hits)
        assert not answer.is_calibrated and not answer.nothing_matches


def test_nothing_matches_is_an_answer(searcher: Searcher) -> None:
    strict = Searcher(searcher.index, searcher.encoders)
    assert searcher.match is not None
    strict.match = dataclasses.replace(searcher.match, cutoff=1.1)
    answer = strict.search(Query(("a red circle",)))
    assert answer.nothing_matches and len(answer.hits) == 10
    strict.match = dataclasses.replace(searcher.match, cutoff=-1.1)
    assert not strict.search(Query(("a red circle",))).nothing_matches


def test_days_without_images_are_reported(searcher: Searcher, capsys: pytest.CaptureFixture[str]) -> None:
    answer = searcher.search(Query(("a red circle",), after=date(2099, 1, 1)))
    assert answer.hits == [] and answer.is_calibrated and not answer.nothing_matches
    assert run(["search", "a red circle", "--index", str(searcher.index.folder), "--after", "2099-01-01"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(r"^no image was taken after 2099-01-01; only \d+ of 12 have a date$", printed.err)


def test_bundle_without_calibration_answers_without_probabilities(searcher: Searcher) -> None:
    bare = Searcher(searcher.index, searcher.encoders)
    bare.match = None
    answer = bare.search(Query(("a red circle",)))
    assert not answer.is_calibrated and not answer.nothing_matches
    assert len(answer.hits) == 10 and all(hit.probability is None for hit in answer.hits)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(), "query is empty"),
        (Query(minus=("a dog",)), "query is empty"),
        (Query(("a dog", " ")), "query is empty"),
        (Query(("a",), text_weight=1.5), "text_weight must be from 0 to 1, got 1.5"),
        (Query(("a",), minus=("b",), minus_weight=-1), "minus_weight must be from 0 to 2"),
        (Query(rows=(12,)), "rows must be from 0 to 11, got 12"),
        (Query(("a",), top_k=-1), "top_k must be at least 0, got -1"),
        (
            Query(("a",), after=date(2021, 1, 2), before=date(2021, 1, 1)),
            "after must not be later than before, got 2021-01-02 and 2021-01-01",
        ),
    ],
)
def test_a_query_without_an_answer_is_one_line(searcher: Searcher, query: Query, words: str) -> None:
    with pytest.raises(MiniClipError, match=words):
        searcher.search(query)


# duplicates and labels


def test_duplicates_are_equal_files_and_images_that_look_the_same(sorted_away: Searcher, tmp_path: Path) -> None:
    def groups(threshold: float) -> list[list[str]]:
        index = ImageIndex.open(tmp_path / "index")
        return [[index.paths[row].name for row in rows] for rows in find_duplicates(index, threshold)]

    assert groups(1.0) == [["x.png", "x copy.png"]]
    draw_image("blue", "circle").resize((192, 160)).save(tmp_path / "p/larger.png")
    update_index(str(tmp_path / "p"), sorted_away.encoders, tmp_path / "index")
    similarity = {
        (a.row, b.row): b.score
        for again in [Searcher(ImageIndex.open(tmp_path / "index"), sorted_away.encoders)]
        for a in again.by_text("circle", 9)
        for b in again.by_row(a.row, 9)
    }
    index = ImageIndex.open(tmp_path / "index")
    rows = {path.name: row for row, path in enumerate(index.paths)}
    alike = similarity[rows["y.png"], rows["larger.png"]]
    assert ["y.png", "larger.png"] in [sorted(group, reverse=True) for group in groups(alike - 1e-4)]
    assert groups(1.0) == [["x.png", "x copy.png"]]
    with pytest.raises(MiniClipError, match="threshold must be above 0 and at most 1, got 2"):
        find_duplicates(index, 2.0)


def test_labels_get_probabilities_that_sum_to_one(searcher: Searcher) -> None:
    labels = ["red circle", "blue triangle", "dog"]
    rows, probabilities = classify(list(searcher.index.paths), labels, searcher.encoders)
    assert rows.tolist() == list(range(12)) and probabilities.shape == (12, 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(12), abs=1e-5)
    scores = searcher.index.image_embeds @ label_embeds(labels, searcher.encoders).T
    assert (probabilities.argmax(axis=1) == scores.argmax(axis=1)).all()
    for wrong in (["one"], ["a", "a"], ["a", ""]):
        with pytest.raises(MiniClipError, match="labels needs two or more different labels"):
            classify(list(searcher.index.paths), wrong, searcher.encoders)
