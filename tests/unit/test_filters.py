"""Filters of a search, alone and beside words, from the command line and from Python."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

import miniclip
from miniclip.cli.main import parser, run
from miniclip.cli.search import _split_folder
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.settings import INDEX_FORMAT
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.compose import browse
from miniclip.search.filters import FILTERS, Filters
from miniclip.search.place import Place, distance_km
from miniclip.search.query import Query
from miniclip.search.searcher import Searcher
from tests.support.indexing import encoders
from tests.support.photos import write_photo

__all__ = ["encoders"]  # a fixture
EIFFEL, LOUVRE, OPERA = (48.8584, 2.2945), (48.8606, 2.3376), (-33.8568, 151.2153)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    canon, canon_2, phone = ("Canon", "Canon EOS 5D"), ("Canon", "Canon EOS 5D Mark II"), ("Apple", "iPhone 15")
    write_photo(folder / "paris/tower.jpg", canon, "2023:05:01 10:00:00", EIFFEL, 5, size=(60, 40), colour="red")
    write_photo(folder / "paris/louvre.jpg", canon_2, "2023:05:02 10:00:00", LOUVRE, 3, size=(40, 60), colour="blue")
    write_photo(folder / "sydney.jpg", phone, "2024:01:20 10:00:00", OPERA, size=(50, 49), colour="green")
    write_photo(folder / "large.png", size=(1500, 1000), colour="white")
    return folder


@pytest.fixture(scope="module")
def index_folder(photos: Path, encoders: OnnxEncoders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filters") / "index"
    update_index(str(photos), encoders, folder)
    return folder


@pytest.fixture(scope="module")
def index(index_folder: Path) -> ImageIndex:
    return ImageIndex.open(index_folder)


def names(index: ImageIndex, **filters: Any) -> list[str]:
    return [index.paths[row].stem for row in browse(Filters(**filters), index).tolist()]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["sydney", "louvre", "tower", "large"]),
        ({"camera": "canon"}, ["louvre", "tower"]),
        ({"camera": "Canon EOS 5D"}, ["tower"]),  # the exact name, although another one begins with it
        ({"camera": "leica"}, []),
        ({"orientation": "portrait"}, ["louvre"]),
        ({"orientation": "square"}, ["sydney"]),
        ({"orientation": "landscape"}, ["tower", "large"]),
        ({"min_megapixels": 1.5}, ["large"]),
        ({"min_megapixels": 1.6}, []),
        ({"file_type": "png"}, ["large"]),
        ({"min_rating": 3}, ["louvre", "tower"]),
        ({"min_rating": 4}, ["tower"]),
        ({"near": Place(*EIFFEL)}, ["louvre", "tower"]),
        ({"near": Place(*EIFFEL), "within_km": 1.0}, ["tower"]),
        ({"after": date(2023, 5, 2), "camera": "canon"}, ["louvre"]),
        ({"after": date(2023, 5, 1), "before": date(2023, 12, 31)}, ["louvre", "tower"]),
    ],
)
def test_a_filter_alone_lists_images_newest_first(index: ImageIndex, filters: dict[str, Any], found: list[str]) -> None:
    assert names(index, **filters) == found


def test_every_field_is_in_the_table() -> None:
    assert list(FILTERS) == list(Filters.__dataclass_fields__)


def test_distance_is_that_of_a_great_circle() -> None:
    """Paris to Sydney by an independent formula: the angle between two vectors."""
    vectors = []
    for latitude, longitude in (EIFFEL, OPERA):
        north, east = np.radians([latitude, longitude])
        vectors.append([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
    expected = 6371.0088 * np.arccos(np.dot(vectors[0], vectors[1]))
    assert distance_km(Place(*EIFFEL), np.array([OPERA[0]]), np.array([OPERA[1]]))[0] == pytest.approx(expected)
    across = distance_km(Place(0, 179.9), np.array([0.0]), np.array([-179.9]))[0]
    assert across == pytest.approx(0.2 * np.pi / 180 * 6371.0088)  # across the date line, not around the Earth


def test_words_with_filters_search_only_filtered_images(index: ImageIndex, encoders: OnnxEncoders) -> None:
    searcher = Searcher(index, encoders)
    hits = searcher.search(Query(("a red circle",), camera="canon")).hits
    assert {hit.path.stem for hit in hits} == {"tower", "louvre"}
    by_date = searcher.search(Query(("a red circle",), sort="date")).hits
    assert [hit.path.stem for hit in by_date] == ["sydney", "louvre", "tower", "large"]
    assert {hit.row: hit.score for hit in by_date} == {
        hit.row: hit.score for hit in searcher.search(Query(("a red circle",))).hits
    }


def test_an_older_index_gains_the_facts_without_embedding(
    photos: Path, index_folder: Path, encoders: OnnxEncoders, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(photos), encoders, out)
    table = lancedb.connect(str(out)).open_table("pictures")
    table.drop_columns(["camera", "rating", "latitude", "longitude", "file_type"])
    settings = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps(settings | {"format": 3}))
    old = ImageIndex.open(out)
    assert names(old, camera="canon") == [] and names(old, orientation="portrait") == ["louvre"]
    report = update_index(str(photos), encoders, out)
    new = ImageIndex.open(out)
    assert (report.added, report.kept) == (0, 4) and np.array_equal(old.image_embeds, new.image_embeds)
    assert names(new, camera="canon") == ["louvre", "tower"] and names(new, near=Place(*OPERA)) == ["sydney"]
    assert names(new, min_rating=5) == ["tower"] and names(new, file_type="png") == ["large"]
    assert json.loads((out / "index.json").read_text())["format"] == INDEX_FORMAT
    assert [len(column) for column in ImageIndex.open(out).facts.columns] == [4] * 7  # from the summary


def test_a_copy_added_during_the_migration_has_the_facts(photos: Path, encoders: OnnxEncoders, tmp_path: Path) -> None:
    folder, out = tmp_path / "own", tmp_path / "index"
    write_photo(folder / "a.jpg", ("Canon", "Canon EOS R5"))
    update_index(str(folder), encoders, out)
    lancedb.connect(str(out)).open_table("pictures").drop_columns(["camera"])
    settings = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps(settings | {"format": 3}))
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes())
    assert update_index(str(folder), encoders, out).reused == 1
    assert names(ImageIndex.open(out), camera="canon") == ["a", "b"]


def test_the_command_lists_by_filters_alone(index_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "--index", str(index_folder), "--near", "-33.9,151.2", "--within", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].split("\t")[0] == "2024-01-20" and lines[0].endswith("sydney.jpg")
    assert run(["search", "--index", str(index_folder), "--type", "jpg", "--min-rating", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [(Path(one["path"]).stem, one["taken"], one["score"]) for one in found] == [
        ("louvre", "2023-05-02", None),
        ("tower", "2023-05-01", None),
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--orientation", "round"], "--orientation must be landscape, portrait or square, got round"),
        (["--near", "Paris"], "must be latitude and longitude in degrees, such as 48.86,2.35, got Paris"),
        (["--near", "91,0"], "must be latitude and longitude"),
        (["--within", "5"], "--within needs a place as well"),
        (["--min-rating", "6"], "must be a number of stars from 1 to 5, got 6"),
        (["--camera", ""], "is empty"),
        (["red", "--sort", "size"], "there is no --sort size; choose from match, date"),
    ],
)
def test_a_wrong_filter_is_refused_in_one_line(
    index_folder: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MiniClipError, match=words):
        run(["search", "--index", str(index_folder), *flags])


@pytest.mark.parametrize(
    ("typed", "words", "folder"),
    [
        (["/photos", "--camera", "canon"], [], "/photos"),
        (["red", "/photos", "--camera", "canon"], ["red"], "/photos"),
        (["red", "--camera", "canon"], ["red"], "."),
        (
            ["src", "--camera", "canon"],
            ["src"],
            ".",
        ),  # a folder of this name exists, but the text may be meant as words
        (["/photos"], ["/photos"], "."),
        (["--camera", "canon"], [], "."),
    ],
)
def test_a_path_beside_a_filter_is_the_folder(
    typed: list[str], words: list[str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _split_folder(parser().parse_args(["search", *typed])) == (words, folder)


def test_no_result_after_filters_is_explained(index_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "--index", str(index_folder), "--camera", "leica"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("no image passes --camera leica; cameras: ") and "Apple iPhone 15" in printed.err


def test_deleted_images_are_left_out_and_counted(
    photos: Path, encoders: OnnxEncoders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "own", tmp_path / "index"
    for number in range(5):
        write_photo(folder / f"{number}.jpg", taken=f"2024:01:0{number + 1} 10:00:00", colour=(40 * number, 30, 30))
    update_index(str(folder), encoders, out)
    (folder / "4.jpg").unlink()
    assert run(["search", "--index", str(out), "--after", "2024-01-01", "--top-k", "2"]) == 0
    printed = capsys.readouterr()
    assert [Path(line.split("\t")[1]).stem for line in printed.out.splitlines()] == ["3", "2"]
    assert printed.err.startswith("left out 1 image that is no longer on disk; bring the index up to date with: ")
    (folder / "3.jpg").unlink()
    assert run(["search", "red", "--index", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["results"]) == 3 and found["missing"] == 2


def test_filters_in_python(index_folder: Path) -> None:
    model = miniclip.load(ImageIndex.open(index_folder).bundle_folder, provider="cpu")
    opened = miniclip.open_index(index_folder, model)
    assert [hit.path.stem for hit in opened.search(camera="canon", top_k=1)] == ["louvre"]
    assert [hit.path.stem for hit in opened.search("red", near=EIFFEL, within_km=1)] == ["tower"]
    with pytest.raises(MiniClipError, match="query is empty"):
        opened.search()
    with pytest.raises(MiniClipError, match="near must be latitude and longitude"):
        opened.search(near=(100, 0))
