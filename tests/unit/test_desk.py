"""Work of the page besides answers: captions and maps computed once, a model chosen meanwhile, limits of a request."""

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo import image_map as image_map
from demo.app_state import AppState, Job
from demo.form import MAX_TEXT
from demo.page import answering
from demo.search_request import read_query
from demo.tabs import compare
from demo.tabs import describe as captions_tab
from demo.tabs import library as library_tab
from demo.tabs import map as map_tab
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.location import index_folder
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.searcher import Searcher
from tests.support.drawing import draw_image

TIMEOUT_S = 60


class HeldEncoders(OnnxEncoders):
    """Encoders that embed captions only after a release, and everything else at once."""

    begun, go = threading.Event(), threading.Event()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        if "a red circle on white" in texts:
            self.begun.set()
            assert self.go.wait(TIMEOUT_S)
        return super().encode_texts(texts)


@pytest.fixture
def open_desk(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppState]]:
    """The state of a page with an index of a folder, in its own cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))  # indexes of other tests are not found

    def opened(images: Path, kind: type[OnnxEncoders] = OnnxEncoders, is_public: bool = False) -> AppState:
        encoders = kind(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)
        folder = index_folder(str(images), encoders.bundle.fingerprint)
        update_index(str(images), encoders, folder)
        return AppState(Searcher(ImageIndex.open(folder), encoders), "cpu", is_public)

    yield opened
    ended("_prepare_captions")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images without captions."""
    (tmp_path / "pictures").mkdir()
    for colour in ("red", "blue"):
        draw_image(colour, "circle").save(tmp_path / "pictures" / f"{colour}.png")
    return tmp_path / "pictures"


def ended(name: str) -> None:
    """Wait for the page's threads of this name or function."""
    for thread in threading.enumerate():
        if name in thread.name:
            thread.join(TIMEOUT_S)


def test_nobody_waits_for_captions_that_are_being_embedded(
    open_desk: Callable[..., AppState], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_state = open_desk(image_folder, HeldEncoders)
    assert HeldEncoders.begun.wait(TIMEOUT_S), "nobody embeds them"
    tab = captions_tab.handlers(app_state)
    describe, label = tab["describe"], tab["label"]
    asked = {"row": 0, "gallery": app_state.search.previews.version}
    with contextlib.ExitStack() as held:
        held.callback(HeldEncoders.go.set)
        waiting = answering("describe", describe)(asked)
        assert waiting["wait"] and "still being prepared" in waiting["message"]
        assert label({**asked, "labels": "red, blue"})["html"].count("<li>") == 2
        with pytest.raises(MiniClipError, match="still being prepared"):
            app_state.search.captions_of(app_state.search.image(0))
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
        (tmp_path / "bad.png").write_text("no image")
        with pytest.raises(MiniClipError, match="not an image"):
            describe({"picture": str(tmp_path / "bad.png")})
    ended("_prepare_captions")
    assert describe(asked)["html"].count("<li>") == 5


def test_image_is_checked_without_embedding_words(
    open_desk: Callable[..., AppState], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_state = open_desk(images)
    embedded: list[str] = []
    monkeypatch.setattr(app_state.search.searcher.encoders, "encode_texts", embedded.extend)
    describe = captions_tab.handlers(app_state)["describe"]
    assert "have no captions" in describe({"row": 0, "gallery": app_state.search.previews.version})["html"]
    assert embedded == []


def test_captions_of_a_gallery_opened_later_are_embedded_before_anybody_asks(
    open_desk: Callable[..., AppState], images: Path, image_folder: Path
) -> None:
    app_state = open_desk(images)
    app_state.index(str(image_folder))
    ended("indexing")
    assert app_state.search.searcher.has_captions
    ended("_prepare_captions")
    assert app_state.search.searcher.captions_are_ready


def test_what_a_folder_leaves_out_is_kept_until_it_is_given_again(
    open_desk: Callable[..., AppState], images: Path, image_folder: Path
) -> None:
    app_state = open_desk(image_folder)
    tab = library_tab.handlers(app_state)

    def names_after(exclude: str | None) -> list[str]:
        tab["index"]({"folder": str(images), "exclude": exclude})
        ended("indexing")
        return sorted(path.name for path in app_state.search.index.paths)

    assert tab["patterns"]({"folder": str(images)}) == {"patterns": ""} == tab["patterns"]({})
    assert names_after("blue.*\n\nnone/\n") == ["red.png"]
    assert tab["patterns"]({"folder": str(images)}) == {"patterns": "blue.*\nnone/"}
    assert "blue.*, none/" in tab["status"]({})["html"]
    assert names_after(None) == ["red.png"]
    assert names_after("") == ["blue.png", "red.png"]
    assert "Left out" not in tab["status"]({})["html"]
    tab["index"]({"folder": str(images), "exclude": "!"})
    ended("indexing")
    assert app_state.job is not None and "“Leave out” is not a valid gitignore pattern: !" in app_state.job.error


def test_the_page_searches_names_unless_they_are_ignored(
    open_desk: Callable[..., AppState], images: Path, tmp_path: Path
) -> None:
    shutil.copy(images / "blue.png", images / "invoice 2024.png")
    app_state = open_desk(images)

    def found(**form: str) -> tuple[list[str], list[bool]]:
        query = read_query({"q": "invoice", "copies": "1", **form}, app_state.search.paths)
        assert query is not None
        cards = app_state.search.search(query, 3).cards
        return [card.title for card in cards], [card.by_name for card in cards]

    titles, by_name = found()
    assert titles[0] == "invoice 2024.png" and by_name == [True, False, False]
    without, by_name = found(unnamed="1")
    assert by_name == [False] * 3
    expected = app_state.search.searcher.by_text("invoice", 3)
    assert without == [hit.path.name for hit in expected]


def test_precision_chosen_while_a_folder_is_indexed_stays(
    open_desk: Callable[..., AppState], images: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_state = open_desk(images)
    begun, go = threading.Event(), threading.Event()

    def tell(job: Job, done: int, total: int) -> None:
        begun.set()
        assert go.wait(TIMEOUT_S)

    monkeypatch.setattr(Job, "show_progress", tell)
    app_state.index(str(image_folder))
    assert begun.wait(TIMEOUT_S)
    assert app_state.use(app_state.name_of(app_state.search.searcher.encoders.bundle), "int8") is None
    go.set()
    ended("indexing")
    assert app_state.images == str(image_folder)
    assert app_state.search.searcher.encoders.precision == "int8"


@pytest.fixture
def other_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The same towers with another fingerprint, as for other weights."""
    other = tmp_path / "bundles" / "other"
    shutil.copytree(tiny_bundle, other)
    change_manifest(other, fingerprint="0" * 64)
    return other


def change_manifest(bundle: Path, **values: Any) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, **values}))


def test_compare_sees_an_index_and_a_bundle_that_have_changed(
    open_desk: Callable[..., AppState], images: Path, other_bundle: Path
) -> None:
    def index_by_other() -> None:
        encoders = OnnxEncoders(Bundle.open(other_bundle), "cpu", "fp32", threads=1)
        update_index(str(images), encoders, index_folder(str(images), encoders.bundle.fingerprint))

    def by_other() -> compare.ModelColumn:
        own = f"{app_state.name_of(app_state.search.searcher.encoders.bundle)} · fp32"
        return compare.compare(app_state, "a circle", (own, "other · fp32"))[1]

    app_state = open_desk(images)
    index_by_other()
    assert (len(by_other().cards), by_other().absent) == (2, 0)
    draw_image("green", "circle").save(images / "green.png")
    index_by_other()
    assert (len(by_other().cards), by_other().absent) == (2, 1)  # the open gallery does not have it yet
    app_state = open_desk(images)
    assert (len(by_other().cards), by_other().absent) == (3, 0)
    before = {card.probability for card in by_other().cards}
    match = {"slope": 1.0, "intercept": 30.0, "cutoff": 0.0, "pictures": 12, "captions": 24, "split": "val"}
    change_manifest(other_bundle, match=match)
    assert {round(card.probability or 0) for card in by_other().cards} == {1} != before


def test_compare_keeps_what_it_has_opened(
    open_desk: Callable[..., AppState], images: Path, other_bundle: Path, tiny_bundle: Path
) -> None:
    app_state = open_desk(images)
    shown = app_state.search.searcher
    encoders = OnnxEncoders(Bundle.open(other_bundle), "cpu", "fp32", threads=1)
    update_index(str(images), encoders, index_folder(str(images), encoders.bundle.fingerprint))
    assert compare._searcher(app_state, "other · fp32") is compare._searcher(app_state, "other · fp32")
    assert compare._searcher(app_state, f"{tiny_bundle.name} · fp32") is shown
    assert compare._searcher(app_state, f"{tiny_bundle.name} · int8").gallery is shown.gallery


def test_public_page_computes_no_umap(
    open_desk: Callable[..., AppState], image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def umap(image_embeds: np.ndarray) -> np.ndarray:
        raise AssertionError("UMAP ran")

    monkeypatch.setattr(image_map, "umap", umap)
    points = map_tab.handlers(open_desk(image_folder, is_public=True))["points"]
    answer = points({"layout": "umap"})
    assert answer == points({"layout": "pca"}) and not answer["has_umap"]


def test_map_is_computed_once_for_all_who_ask_at_once(
    open_desk: Callable[..., AppState], image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, second = [], threading.Barrier(2)

    def pca(image_embeds: np.ndarray) -> np.ndarray:
        computed.append(image_embeds.shape)
        with contextlib.suppress(threading.BrokenBarrierError):
            second.wait(0.5)  # a second computation would arrive now
        return np.zeros((len(image_embeds), 2))

    monkeypatch.setattr(image_map, "pca", pca)
    points = map_tab.handlers(open_desk(image_folder))["points"]
    askers = [threading.Thread(target=points, args=({},)) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(TIMEOUT_S)
    assert len(computed) == 1


def test_one_question_embeds_few_texts(open_desk: Callable[..., AppState], images: Path) -> None:
    app_state = open_desk(images)

    def minus(text: str) -> tuple[str, ...]:
        query = read_query({"q": "a dog", "not": text}, app_state.search)
        assert query is not None
        return query.minus

    many = minus(",".join(map(str, range(100_000))))
    assert many[:3] == ("0", "1", "2") and len(",".join(many)) <= MAX_TEXT
    assert minus("a, a b ,,a") == ("a", "a b")
    label = captions_tab.handlers(app_state)["label"]
    asked = {"row": 0, "gallery": app_state.search.previews.version, "labels": "red, blue"}
    assert "bars" in label({**asked, "templates": "a {}\n" * 500})["html"]
    with pytest.raises(MiniClipError, match="At most 20 templates"):
        label({**asked, "templates": "\n".join(f"{number} {{}}" for number in range(21))})
