"""The handlers for browsing and filters, without a browser; a shared page neither has nor answers private filters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo import detail
from demo.app_state import AppState
from demo.page import answering
from demo.tabs import search
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.filters import FILTERS
from miniclip.search.searcher import Searcher
from tests.support.indexing import encoders
from tests.support.photos import write_photo

__all__ = ["encoders"]  # a fixture
Ask = Callable[..., dict[str, Any]]
PRIVATE = {"folder": "2023", "camera": "Canon EOS R5", "min_rating": "4", "near": "48.86,2.29", "within_km": "1"}


@pytest.fixture(scope="module")
def searcher(encoders: OnnxEncoders, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("browse") / "photos"
    camera = ("Canon", "Canon EOS R5")
    write_photo(folder / "2023/a.jpg", camera, "2023:12:30 10:00:00", (48.8584, 2.2945), 5, colour="red")
    write_photo(folder / "2024/b.jpg", camera, "2024:01:02 10:00:00", colour="blue")
    write_photo(folder / "2024/c.jpg", taken="2024:01:20 10:00:00", size=(30, 60), colour="green")
    write_photo(folder / "2024/d.png", size=(60, 30), colour="white")
    update_index(str(folder), encoders, folder.parent / "index")
    return Searcher(ImageIndex.open(folder.parent / "index"), encoders)


@pytest.fixture(params=[False, True], ids=["local", "shared"])
def page(searcher: Searcher, request: pytest.FixtureRequest) -> tuple[AppState, Ask]:
    app_state = AppState(searcher, "cpu", is_public=request.param)
    handlers = search.handlers(app_state)
    return app_state, lambda name, **form: answering(name, handlers[name])(form)


def test_months_and_cards_are_all_images_newest_first(page: tuple[AppState, Ask]) -> None:
    app_state, ask = page
    found = ask("browse")
    assert found["months"] == [["January 2024", 2], ["December 2023", 1], ["Without a date", 1]]
    assert (found["count"], found["heading"]) == (4, "All 4 images")
    gallery = app_state.search.previews.version
    cards = ask("browse_cards", gallery=gallery, start=0, count=10)["cards"]
    assert [title for _, title, _, _ in cards] == ["c.jpg", "b.jpg", "a.jpg", "d.png"]
    assert [preview for _, _, preview, _ in cards] == [f"preview/{gallery}/small/{row}.webp" for row, *_ in cards]
    assert ask("browse_cards", gallery=gallery, start=1, count=2)["cards"] == cards[1:3]
    assert ask("browse_cards", gallery=gallery, start=99, count=2)["cards"] == []


def test_filters_alone_narrow_the_months(page: tuple[AppState, Ask]) -> None:
    _, ask = page
    found = ask("browse", orientation="portrait")
    assert (found["heading"], found["months"]) == ("1 image", [["January 2024", 1]])
    assert ask("browse", file_type="png")["months"] == [["Without a date", 1]]
    assert ask("browse", min_megapixels="50")["message"] == "No image matches these filters: change or clear them."
    assert ask("browse", min_megapixels="many")["message"] == "“Size” must be a number of million pixels, such as 2."
    assert ask("browse", after="yesterday")["message"] == "“From” must be a day such as 2024-12-31."
    assert ask("browse", orientation="round")["message"].startswith("“Shape” must be landscape, portrait or square")


def test_a_page_of_another_gallery_gets_a_message(page: tuple[AppState, Ask]) -> None:
    assert page[1]("browse_cards", gallery="older", start=0, count=10)["gallery_changed"]


def test_private_filters_exist_only_on_the_local_page(page: tuple[AppState, Ask]) -> None:
    app_state, ask = page
    assert {name for name, one in FILTERS.items() if one.is_private} == set(PRIVATE)
    offered = ask("about")["filters"]
    if app_state.is_public:
        assert set(offered) == {"after", "before", "orientation", "min_megapixels", "file_type"}
        assert "Canon" not in str(ask("about")) and "Canon" not in str(ask("browse"))
    else:
        assert set(offered) == set(FILTERS)
        assert offered["camera"] == [("Canon EOS R5", "Canon EOS R5 (2)")]
        assert offered["file_type"] == [("jpeg", "jpeg (3)"), ("png", "png (1)")]
    for name, value in PRIVATE.items():
        for asked in ("browse", "search"):
            answer = ask(asked, q="red" if asked == "search" else "", **{name: value, "near": PRIVATE["near"]})
            assert ("A shared page does not have the filter" in answer.get("message", "")) == app_state.is_public, (
                answer
            )


def test_a_place_and_its_radius_narrow_the_results(searcher: Searcher) -> None:
    handlers = search.handlers(AppState(searcher, "cpu"))
    found = answering("browse", handlers["browse"])({"near": "48.8606, 2.3376"})
    assert found["months"] == [["December 2023", 1]]
    assert "message" in answering("browse", handlers["browse"])({"near": "48.8606, 2.3376", "within_km": "1"})
    without_place = answering("browse", handlers["browse"])({"within_km": "1"})
    assert without_place["count"] == 4  # a radius without a place


def test_results_come_by_date_when_asked(searcher: Searcher) -> None:
    handlers = search.handlers(AppState(searcher, "cpu"))
    html = answering("search", handlers["search"])({"q": "a red circle", "sort": "date"})["html"]
    places = [html.index(f">{name}<") for name in ("c.jpg", "b.jpg", "a.jpg", "d.png")]
    assert places == sorted(places)


def test_an_image_that_was_deleted_is_marked(encoders: OnnxEncoders, tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        write_photo(tmp_path / f"photos/{name}.jpg", colour=colour)
    update_index(str(tmp_path / "photos"), encoders, tmp_path / "index")
    (tmp_path / "photos/a.jpg").unlink()
    app_state = AppState(Searcher(ImageIndex.open(tmp_path / "index"), encoders), "cpu")
    cards = app_state.browse.cards({"gallery": app_state.search.previews.version})["cards"]
    assert [(title, is_there) for _, title, _, is_there in cards] == [("a.jpg", False), ("b.jpg", True)]


@pytest.mark.parametrize("elsewhere", [{"is_public": True}, {"is_proxied": True}], ids=["shared", "behind a proxy"])
def test_only_a_local_page_knows_where_an_image_was_taken(searcher: Searcher, elsewhere: dict[str, bool]) -> None:
    row = {path.name: row for row, path in enumerate(searcher.index.paths)}

    def near(name: str, **kind: bool) -> tuple[str, bool]:
        app_state = AppState(searcher, "cpu", **kind)
        found = detail.handlers(app_state)["detail"]({"row": row[name], "gallery": app_state.search.previews.version})
        return found["near"], "Near this image" in found["html"]

    assert near("a.jpg") == ("48.85840, 2.29450", True)
    assert near("b.jpg") == ("", False)
    assert near("a.jpg", **elsewhere) == ("", False)
