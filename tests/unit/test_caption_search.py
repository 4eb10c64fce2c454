"""Captions of an index that describe an image, and the file of their embeddings."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from miniclip.index.image_index import Captions
from miniclip.search import caption_cache as caption_embeds
from miniclip.search.searcher import Searcher
from tests.support.searching import searcher

__all__ = ["searcher"]  # a fixture


def test_captions_of_an_image_are_shown_once_best_first(searcher: Searcher) -> None:
    hits = searcher.captions_for(searcher.index.paths[0], 100)
    every = {caption for own in searcher.index.captions for caption in own}
    assert sorted(hit.caption for hit in hits) == sorted(every) and len(every) == 24
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.caption in searcher.index.captions[hit.row] for hit in hits)
    assert searcher.captions_for(searcher.index.paths[0], 3) == hits[:3]


def test_a_common_caption_does_not_displace_the_others(searcher: Searcher) -> None:
    shared = [["a photo", f"number {row}"] for row in range(12)]
    crowded = Searcher(dataclasses.replace(searcher.index, captions=Captions.of(shared)), searcher.encoders)
    found = [hit.caption for hit in crowded.captions_for(searcher.index.paths[0], 5)]
    assert len(found) == len(set(found)) == 5


def test_captions_are_embedded_only_once(searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    encode = searcher.encoders.encode_texts
    monkeypatch.setattr(
        searcher.encoders, "encode_texts", lambda texts: [*map(embedded.append, texts)] and encode(texts)
    )

    def search(*captions: str) -> list[str]:
        """The captions that were embedded for a search."""
        embedded.clear()
        rows = Captions.of([list(captions), *[[]] * 11])
        fresh = Searcher(dataclasses.replace(searcher.index, folder=tmp_path, captions=rows), searcher.encoders)
        hits = fresh.captions_for(searcher.index.paths[0])
        assert sorted(hit.caption for hit in hits) == sorted(captions)
        for hit in hits:
            score = searcher.encoders.encode_images([searcher.index.paths[0]])[1][0] @ encode([hit.caption])[0]
            assert hit.score == pytest.approx(score, abs=5e-3)  # int8: the batch has a small effect
        return list(embedded)

    assert search("a cat", "a red circle") == ["a cat", "a red circle"]
    assert search("a cat", "a red circle") == []
    assert search("a red circle", "a dog", "a cat") == ["a dog"]
    monkeypatch.setattr(caption_embeds, "TOGETHER", 1)
    monkeypatch.setattr(caption_embeds, "SAVE_EVERY_S", 0.0)
    with monkeypatch.context() as stopped:
        stopped.setattr(searcher.encoders, "encode_texts", lambda texts: encode(texts) if texts != ["c"] else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            search("a", "b", "c", "d")
    assert search("a", "b", "c", "d") == ["c", "d"]  # captions embedded before the stop are kept


@pytest.mark.parametrize("damage", ["cut off", "another method", "no archive", "no keys"])
def test_a_damaged_caption_file_is_written_again(searcher: Searcher, tmp_path: Path, damage: str) -> None:
    ours = dataclasses.replace(searcher.index, folder=tmp_path)
    expected = Searcher(ours, searcher.encoders).captions_for(searcher.index.paths[0])
    path = tmp_path / "captions.npz"
    whole = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(whole[:100])
    elif damage == "another method":  # of compression, given by a bit of the zip directory
        at = whole.rindex(b"PK\x01\x02") + 10
        path.write_bytes(whole[:at] + b"\x40" + whole[at + 1 :])
    elif damage == "no archive":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        np.savez(path, fingerprint=searcher.encoders.bundle.fingerprint, keys=0, text_embeds=0)
    assert Searcher(ours, searcher.encoders).captions_for(searcher.index.paths[0]) == expected
    assert path.read_bytes() == whole


def test_captions_of_an_index_that_cannot_be_written_are_searched(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("no folder")
    unwritable = dataclasses.replace(searcher.index, folder=tmp_path / "index")
    assert len(Searcher(unwritable, searcher.encoders).captions_for(searcher.index.paths[0])) == 5


def test_index_that_is_deleted_while_captions_are_embedded_stays_deleted(searcher: Searcher, tmp_path: Path) -> None:
    deleted = dataclasses.replace(searcher.index, folder=tmp_path / "index")
    assert len(Searcher(deleted, searcher.encoders).captions_for(searcher.index.paths[0])) == 5
    assert not (tmp_path / "index").exists()


def test_index_without_captions_has_none(searcher: Searcher) -> None:
    bare = Searcher(dataclasses.replace(searcher.index, captions=Captions.of([[]] * 12)), searcher.encoders)
    assert (searcher.has_captions, bare.has_captions) == (True, False)
    assert bare.captions_for(searcher.index.paths[0]) == []
