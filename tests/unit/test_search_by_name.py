"""Search by captions, names, dates and text in images, without embeddings."""

import numpy as np
import pytest

from miniclip.index.columns import Captions, Paths, Texts
from miniclip.index.video_frames import VideoFrames
from miniclip.search.names import NameMatches, NameSearch, fuse, lines_with


class Named:
    """The words of an index, without images."""

    def __init__(
        self, paths: list[str], captions: list[list[str]], taken: list[str], texts: list[str] | None = None
    ) -> None:
        self.texts = Texts.of(texts or [""] * len(paths))
        self.paths, self.captions = Paths(Texts.of(paths)), Captions.of(captions)
        self.taken = np.array(taken, dtype="datetime64[s]")
        self.frames = VideoFrames.of(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


NAMED = Named(
    ["/dog/a/IMG_1.jpg", "/dog/a/cat.jpg", "/dog/b 2021/x.jpg", "/dog/invoices/2.jpg"],
    [["pile of poo", "poop"], ["a cat face"], [], ["a bill"]],
    ["2023-05-01", "NaT", "2023-06-01", "NaT"],
)


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("poop", [0]),  # words do not span two texts
        ("Cats", [1]),
        ("the invoice", [3]),
        ("dog", []),  # the common folder of all images does not count
        ("2021", [2]),
        ("2023", [0, 2]),
        ("may 2023", [0, 2]),
        ("img", [0]),
        ("ca", []),
        ("", []),
    ],
)
def test_captions_names_and_dates_are_found(words: str, rows: list[int]) -> None:
    assert sorted(NameSearch(NAMED).search(words).rows.tolist()) == rows  # type: ignore[arg-type]


def test_one_word_of_several_is_not_a_match() -> None:
    captions = [["red heart"], ["red car"], ["a car"], ["a red bus beside a car"]]
    index = Named([f"/p/{number}.jpg" for number in range(4)], captions, ["NaT"] * 4)
    assert NameSearch(index).search("a red car").rows.tolist() == [1, 3]  # type: ignore[arg-type]
    assert NameSearch(index).search("red").rows.tolist() == [0, 1, 3]  # type: ignore[arg-type]


def test_better_name_matches_rank_higher() -> None:
    index = Named(["/p/1.jpg", "/p/2.jpg", "/p/3.jpg"], [["a black cat at night"], ["cat"], ["black cat"]], ["NaT"] * 3)
    assert NameSearch(index).search("black cat").rows.tolist()[0] == 2  # type: ignore[arg-type]
    assert NameSearch(index).search("cat").rows.tolist()[0] == 1  # type: ignore[arg-type]
    allowed = np.array([True, False, True])
    assert 1 not in NameSearch(index).search("cat", allowed).rows  # type: ignore[arg-type]


def test_text_in_an_image_ranks_below_an_equal_caption() -> None:
    texts = ["", "Receipt\nBread 2.40\nTotal 12.90", "Straße gesperrt", "駅前広場 出口"]
    paths = [f"/p/{number}.jpg" for number in range(4)]
    index = Named(paths, [["a total"], [], [], []], ["NaT"] * 4, texts)
    assert NameSearch(index).search("total").rows.tolist() == [0, 1]  # type: ignore[arg-type]
    assert NameSearch(index).search("bread receipt").rows.tolist() == [1]  # type: ignore[arg-type]
    assert NameSearch(index).search("gesperrt").rows.tolist() == [2]  # type: ignore[arg-type]
    assert NameSearch(index).search("広場").rows.tolist() == [3]  # type: ignore[arg-type]


def test_the_lines_with_the_words_are_shown() -> None:
    text = "Receipt\nBread 2.40\nTotal 12.90\nthe end"
    assert lines_with(["the total of bread"], text) == "Bread 2.40 … Total 12.90"
    assert lines_with(["dog"], text) == ""


def test_ranks_by_name_and_by_embedding_are_fused() -> None:
    by_embedding = np.arange(100)
    none = NameMatches(np.array([], int), np.array([]), np.array([], int))
    assert fuse(by_embedding, none).tolist() == list(range(100))
    fused = fuse(by_embedding, NameMatches(np.array([50, 200]), np.array([1.0, 1.0]), np.array([1, 1])))
    assert fused[:3].tolist() == [50, 200, 0]
