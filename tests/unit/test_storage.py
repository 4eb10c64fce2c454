"""Object storage follows the rules of folders: odd names, hidden names, and the limit for an image's size."""

import hashlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from demo.app_state import AppState
from demo.gallery_search import GallerySearch
from demo.search_request import read_query
from demo.tabs import describe as captions_tab
from miniclip.data.images import open_image
from miniclip.data.storage import read_uri
from miniclip.errors import MiniClipError
from miniclip.index import scan as ingest
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.scan import scan_images
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.searcher import Searcher
from miniclip.search.zero_shot import classify_objects
from tests.support.cli import run_cli
from tests.support.drawing import COLOURS, SHAPES, draw_image

NAMES = ["A.png", "%41.png", "a b.png", "ü.png", "a#b.png", "a?b.png", "[1].png", "100%.png", "a\\b.png", "^`{|}.png"]
PLAIN = ["it's.png", "a+b=c,d;e.png", "(1)!$&*:@~.png"]


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A different image under every name, in a folder whose name also needs quotes."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    for number, name in enumerate(NAMES + PLAIN):
        draw_image(*kinds[number % len(kinds)], seed=number).save(folder / name)
    return folder


def test_every_name_is_indexed_with_its_own_image(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    report = update_index(f"file://{quote(str(folder))}", encoders, tmp_path / "uri")
    assert (report.added, report.skipped) == (len(NAMES + PLAIN), [])
    update_index(str(folder), encoders, tmp_path / "plain")
    stored, plain = ImageIndex.open(tmp_path / "uri"), ImageIndex.open(tmp_path / "plain")
    for row, path in enumerate(plain.paths):
        own = stored.row_of(f"file://{quote(str(path), safe=ingest.PLAIN)}")
        assert own is not None, path
        assert stored.sha256[own].tobytes() == hashlib.sha256(path.read_bytes()).digest()
        assert np.array_equal(stored.image_embeds[own], plain.image_embeds[row])
    assert update_index(f"file://{quote(str(folder))}", encoders, tmp_path / "uri").kept == len(NAMES + PLAIN)


def test_a_trailing_slash_does_not_change_a_place(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    place = f"file://{quote(str(folder))}"
    update_index(f"{place}/", encoders, tmp_path / "index")
    (folder / "A.png").unlink()
    assert update_index(place, encoders, tmp_path / "index").removed == 1


def test_plain_names_are_stored_as_they_are(folder: Path) -> None:
    place = f"file://{quote(str(folder))}"
    files = scan_images(place).files
    assert {f"{place}/{name}" for name in ["A.png", *PLAIN]} <= files.keys()


def test_objects_inherit_the_options_of_their_place(encoders: OnnxEncoders, folder: Path) -> None:
    place = f"file://{quote(str(folder))}"
    found = scan_images(f"{place}?region=here&endpoint_override=localhost%3A9")
    (path,) = (path for path in found.files if path.startswith(f"{place}/%2541.png"))
    assert path == f"{place}/%2541.png?region=here&endpoint_override=localhost%3A9"
    assert read_uri(path) == (folder / "%41.png").read_bytes()
    rows, _ = classify_objects(list(found.files), ["red", "blue"], encoders, lambda row, reason: None)
    assert len(rows) == len(NAMES + PLAIN)


def test_one_object_with_options_is_classified(tiny_bundle: Path, folder: Path) -> None:
    uri = f"file://{quote(str(folder))}/A.png?region=here"
    done = run_cli("miniclip.cli", "classify", uri, "--labels", "red", "blue", "--bundle", tiny_bundle)
    assert done.returncode == 0 and done.stdout.rstrip().endswith(uri), done.stderr


def test_hidden_names_and_large_objects_are_treated_as_in_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".trash" / "below").mkdir(parents=True)
    for hidden in (".hidden.png", ".trash/a.png", ".trash/below/a.png"):
        draw_image("red", "circle").save(folder / hidden)
    (folder / "large.png").write_bytes(bytes(20_000))
    monkeypatch.setattr(ingest, "MAX_BYTES", 19_999)
    stored, plain = scan_images(f"file://{quote(str(folder))}"), scan_images(str(folder))
    assert len(stored.files) == len(plain.files) == len(NAMES + PLAIN)
    (own,), (problem,) = stored.problems, plain.problems
    assert own.path == f"file://{quote(problem.path)}"
    assert (own.reason, own.bytes, own.mtime_ns) == (problem.reason, problem.bytes, problem.mtime_ns)


def test_a_named_place_below_a_hidden_folder_is_indexed(tmp_path: Path) -> None:
    (tmp_path / ".here").mkdir()
    draw_image("red", "circle").save(tmp_path / ".here" / "a.png")
    for place in (f"file://{tmp_path}/.here", f"file://{tmp_path}/.here/"):
        assert list(scan_images(place).files) == [f"file://{tmp_path}/.here/a.png"]


def test_place_that_cannot_be_listed_is_one_line(tmp_path: Path) -> None:
    for place in (f"file://{tmp_path}/none", f"file://{tmp_path}/a b", "nothing://here"):
        with pytest.raises(MiniClipError, match="cannot list") as refused:
            scan_images(place)
        assert "\n" not in str(refused.value)


def test_help_names_uris() -> None:
    assert "s3://BUCKET/FOLDER" in run_cli("miniclip.cli", "index", "--help").stdout


@pytest.fixture
def gallery(encoders: OnnxEncoders, tmp_path: Path) -> Searcher:
    """An image in each of two folders of a place with options, as in object storage."""
    for name, colour in (("my photos/a b.png", "red"), ("other/c.png", "blue")):
        (tmp_path / "place" / name).parent.mkdir(parents=True)
        draw_image(colour, "circle").save(tmp_path / "place" / name)
    update_index(f"file://{tmp_path}/place?region=secret", encoders, tmp_path / "index")
    return Searcher(ImageIndex.open(tmp_path / "index"), encoders)


def test_page_shows_and_describes_images_in_storage(gallery: Searcher, tmp_path: Path) -> None:
    app_state = AppState(gallery, "cpu", is_public=True)
    assert open_image(app_state.search.previews.webp(0)).size == (96, 80)
    tab = captions_tab.handlers(app_state)
    describe, label = tab["describe"], tab["label"]
    asked = {"row": 0, "gallery": app_state.search.previews.version}
    assert "have no captions" in describe(asked)["html"]
    assert label({**asked, "labels": "red, blue"})["html"].count("<li>") == 2
    (tmp_path / "place/my photos/a b.png").unlink()
    with pytest.raises(MiniClipError, match="no longer exists") as gone:
        app_state.search.image(0)
    assert str(tmp_path) not in str(gone.value)


def test_page_names_images_in_storage_without_quotes_and_options(gallery: Searcher) -> None:
    for is_public, name in ((True, "a b.png"), (False, "my photos/a b.png")):
        search = GallerySearch(gallery, is_public)
        card = search.card_of(0)
        assert (card.title, card.name) == ("a b.png", name)
    assert search.paths.folders == ["my%20photos", "other"]
    query = read_query({"q": "a red circle", "folder": "other"}, search)
    assert query is not None
    found = search.search(query, 5)
    assert [card.title for card in found.cards] == ["c.png"]


def test_contact_sheet_shows_images_in_storage(gallery: Searcher, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ("a red circle", "--index", gallery.index.folder, "--provider", "cpu", "--sheet", sheet)
    done = run_cli("miniclip.cli", "search", *words)
    assert done.returncode == 0, done.stderr
    colours = {colour for _, colour in open_image(sheet).getcolors(1 << 20)}
    assert {COLOURS["red"], COLOURS["blue"]} <= colours
