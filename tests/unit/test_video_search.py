"""Search in an index with videos: the best moment of each video, by API, command and page."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import miniclip
from demo import cards, detail
from demo.app_state import AppState
from demo.page import answering
from demo.tabs import search
from miniclip.cli.main import run
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search import searcher as searching
from miniclip.search.model import Model
from miniclip.search.query import Query
from miniclip.search.searcher import Searcher
from tests.support.indexing import encoders
from tests.support.videos import BLUE, GREEN, RED, write_video

pytest.importorskip("av", reason="the extra video is not installed")
__all__ = ["encoders"]  # a fixture
Capture = pytest.CaptureFixture[str]
DAY = {"creation_time": "2024-05-01T12:00:00Z"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("found") / "clips"
    write_video(place / "party.mp4", [(RED, 3), (GREEN, 3), (BLUE, 10), (GREEN, 3)], metadata=DAY)
    write_video(place / "trip 12.webm", [(GREEN, 2), (RED, 2)])
    Image.new("RGB", (96, 64), (90, 90, 90)).save(place / "grey.png")
    return place


@pytest.fixture(scope="module")
def searcher(encoders: OnnxEncoders, folder: Path) -> Searcher:
    update_index(str(folder), encoders, folder.parent / "index")
    return Searcher(ImageIndex.open(folder.parent / "index"), encoders)


@pytest.fixture
def blue(searcher: Searcher, tmp_path: Path) -> Path:
    """The frame of the party at 0:06, as an image."""
    from miniclip.data.images import open_image

    row = searcher.index.row_of(f"{searcher.index.paths.file(0).rpartition('/')[0]}/party.mp4#t=6")
    assert row is not None
    open_image(searcher.index.source(row)).save(tmp_path / "blue.png")
    return tmp_path / "blue.png"


def test_a_video_is_found_once_at_its_best_moment(searcher: Searcher, folder: Path, blue: Path) -> None:
    hits = searcher.search(Query(images=(blue,), top_k=10)).hits
    assert sorted(hit.path.name for hit in hits) == ["grey.png", "party.mp4", "trip 12.webm"]
    assert (hits[0].path, hits[0].second) == (folder / "party.mp4", 6)
    frames = searcher.index.frames
    for hit in hits:  # no other frame of its video is nearer
        scores = searcher.index.image_embeds @ searcher.index.image_embeds[hits[0].row]
        assert scores[hit.row] == pytest.approx(scores[frames.first == frames.first[hit.row]].max(), abs=1e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_few_videos_of_many_frames_leave_room_for_others(
    searcher: Searcher, names: bool, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "FUSION_DEPTH", 2)
    hits = searcher.search(Query(texts=("a red circle",), names=names, top_k=top_k)).hits
    assert len(hits) == min(3, top_k) == len({hit.path for hit in hits})


def test_filters_and_dates_take_videos_as_images(searcher: Searcher) -> None:
    hits = searcher.browse(Query(file_type="video", top_k=10))
    assert [hit.path.name for hit in hits] == ["party.mp4", "trip 12.webm"]  # the dated one first
    assert [hit.second for hit in hits] == [0, 0]
    assert {hit.path.name for hit in searcher.search(Query(texts=("red",), file_type="png")).hits} == {"grey.png"}


def test_more_like_a_moment_gives_another_one_of_its_video(searcher: Searcher, folder: Path) -> None:
    row = searcher.index.row_of(folder / "party.mp4#t=3")
    assert row is not None
    best = searcher.search(Query(rows=(row,), top_k=3)).hits
    assert {hit.path.name for hit in best} == {"grey.png", "party.mp4", "trip 12.webm"}
    assert row not in {hit.row for hit in best}


def test_names_of_videos_are_words_and_seconds_are_not(searcher: Searcher) -> None:
    def by_name(words: str) -> set[str]:
        return {hit.path.name for hit in searcher.search(Query(texts=(words,), names=True)).hits if hit.by_name}

    assert by_name("party") == {"party.mp4"} and by_name("trip 12") == {"trip 12.webm"}
    assert by_name("16") == by_name("t") == set()  # party.mp4#t=16


def test_the_python_api_opens_the_frame(searcher: Searcher, folder: Path, blue: Path) -> None:
    index = miniclip.open_index(searcher.index.folder, Model(searcher.encoders))
    hit = index.search(images=blue, top_k=1)[0]
    assert (hit.path, hit.second) == (folder / "party.mp4", 6)
    assert np.array_equal(np.asarray(hit.open()), np.asarray(Image.open(blue)))
    assert {hit.second for hit in index.search(file_type="png")} == {None}


def test_the_command_prints_the_moment(
    searcher: Searcher, folder: Path, blue: Path, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    command = ["search", "--index", str(searcher.index.folder), "--bundle", str(searcher.encoders.bundle.folder)]
    command += ["--image", str(blue), "--top-k", "3"]
    assert run([*command, "--preview", "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert f"{folder / 'party.mp4'} at 0:06".encode() in capfdbinary.readouterr().out
    assert run([*command, "--json"]) == 0
    found = json.loads(capfdbinary.readouterr().out)["results"]
    assert (found[0]["path"], found[0]["second"]) == (str(folder / "party.mp4"), 6)
    assert ["second" in one for one in found].count(False) == 1
    assert run([*command, "-0"]) == 0  # for other programs: files
    paths = capfdbinary.readouterr().out.decode().rstrip("\0").split("\0")
    assert sorted(paths) == sorted(str(path) for path in folder.iterdir())


def test_open_hands_the_file_to_the_desktop(
    searcher: Searcher, folder: Path, blue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("miniclip.cli.terminal.open_file", opened.append)
    command = ["search", "--index", str(searcher.index.folder), "--image", str(blue), "--open"]
    assert run([*command, "--bundle", str(searcher.encoders.bundle.folder)]) == 0
    assert opened == [str(folder / "party.mp4")]


def test_info_counts_videos(searcher: Searcher, capsys: Capture) -> None:
    assert run(["info", str(searcher.index.folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["pictures"], facts["videos"]) == (7, 2)


@pytest.fixture(params=[False, True], ids=["local", "shared"])
def page(searcher: Searcher, request: pytest.FixtureRequest) -> tuple[AppState, Any]:
    app_state = AppState(searcher, "cpu", is_public=request.param)
    handlers = {**search.handlers(app_state), **detail.handlers(app_state)}
    return app_state, lambda name, **form: answering(name, handlers[name])(form)


def test_cards_show_the_moment(page: tuple[AppState, Any], folder: Path, blue: Path) -> None:
    app_state, _ = page
    gallery = app_state.search
    found = gallery.search(Query(images=(blue,)), 10)
    card = found.cards[0]
    assert (card.name, card.title, card.clock, card.second) == ("party.mp4", "party.mp4 at 0:06", "0:06", 6)
    assert 'data-second="6.0" data-clock="0:06"' in cards.results(found)
    assert "party.mp4#t=6" in _download(cards.downloads(found)["JSON"])
    assert gallery.status.startswith("1 image and 2 videos · ")
    assert gallery.previews.webp(card.row)[:4] == b"RIFF"
    assert gallery.image(card.row)[:4] == b"\x89PNG"


def _download(address: str) -> str:
    import base64

    return base64.b64decode(address.partition("base64,")[2]).decode()


def test_a_page_that_others_can_open_names_no_folder_and_plays_nothing(
    page: tuple[AppState, Any], folder: Path, blue: Path
) -> None:
    app_state, ask = page
    row = app_state.search.search(Query(images=(blue,)), 10).cards[0].row
    found = ask("detail", row=row, gallery=app_state.search.previews.version)
    assert found["second"] == 6 and "<dt>Time in the video</dt><dd>0:06</dd>" in found["html"]
    assert (">Play<" in found["html"]) == app_state.is_local
    assert (str(folder) in found["html"]) == app_state.is_local
    assert "#t=" not in found["html"]


def test_the_timeline_shows_each_video_once(page: tuple[AppState, Any]) -> None:
    app_state, ask = page
    months = ask("browse")
    assert (months["count"], months["months"]) == (3, [["May 2024", 1], ["Without a date", 2]])
    found = ask("browse_cards", gallery=app_state.search.previews.version, start=0, count=10)["cards"]
    assert [(title, *second) for _, title, _, _, *second in found] == [
        ("party.mp4 at 0:00", 0),
        ("grey.png",),
        ("trip 12.webm at 0:00", 0),
    ]


def test_a_video_that_is_gone_is_left_out(searcher: Searcher, folder: Path, blue: Path, tmp_path: Path) -> None:
    gallery = AppState(searcher, "cpu").search
    away = tmp_path / "party.mp4"
    os.rename(folder / "party.mp4", away)
    try:
        found = gallery.search(Query(images=(blue,)), 10)
        assert {card.name for card in found.cards} == {"trip 12.webm", "grey.png"} and found.missing == 1
    finally:
        os.rename(away, folder / "party.mp4")


def test_classify_takes_a_moment_and_names_a_video_as_the_problem(
    folder: Path, tiny_bundle: Path, capsys: Capture
) -> None:
    flags = ["--labels", "red", "blue", "--bundle", str(tiny_bundle), "--provider", "cpu"]
    assert run(["classify", f"{folder}/party.mp4#t=6", *flags]) == 0
    assert capsys.readouterr().out.endswith("party.mp4#t=6\n")
    with pytest.raises(MiniClipError, match=r"no image in .*party\.mp4 could be read"):
        run(["classify", f"{folder}/party.mp4", *flags])
    assert "party.mp4: a video, not an image" in capsys.readouterr().err
