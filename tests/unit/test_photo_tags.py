"""Camera, rating and place of files as cameras and programs write them."""

import io
from pathlib import Path

import pytest
from PIL import Image

from miniclip.data.exif import ExifBlock
from miniclip.data.images import read_header, read_image
from miniclip.data.metadata import Metadata
from tests.support.photos import write_photo


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS R5", "Canon EOS R5"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Apple", "iPhone 15 Pro", "Apple iPhone 15 Pro"),
        ("OLYMPUS IMAGING CORP.", "E-M10", "OLYMPUS E-M10"),
        ("  SONY\0junk", "ILCE-7M3 ", "SONY ILCE-7M3"),
        ("", "", None),
        ("", "X100\x07V", "X100 V"),
        ("A" * 200, "B", "A" * 60),
    ],
)
def test_camera_is_named_with_its_maker_once(tmp_path: Path, make: str, model: str, camera: str | None) -> None:
    assert read_header(write_photo(tmp_path / "a.jpg", camera=(make, model))).camera == camera


@pytest.mark.parametrize(
    ("rating", "xmp", "stars"),
    [
        (4, "", 4),
        (None, 'xmp:Rating="5"', 5),
        (2, 'xmp:Rating="3"', 3),
        (None, 'xmp:Rating="-1"', -1),
        (None, 'xmp:Rating="4.0"', 4),
        (0, "", None),
        (99, "", None),
        (None, 'xmp:Rating="many"', None),
        (None, "", None),
    ],
)
def test_a_rating_comes_from_xmp_or_windows(tmp_path: Path, rating: int | None, xmp: str, stars: int | None) -> None:
    assert read_header(write_photo(tmp_path / "a.jpg", rating=rating, xmp=xmp)).rating == stars


@pytest.mark.parametrize("place", [(48.8584, 2.2945), (-33.8568, 151.2153), (40.6892, -74.0445)])
def test_place_is_read_with_its_hemisphere(tmp_path: Path, place: tuple[float, float]) -> None:
    read = read_header(write_photo(tmp_path / "a.jpg", place=place))
    assert (read.latitude, read.longitude) == (pytest.approx(place[0], abs=1e-5), pytest.approx(place[1], abs=1e-5))


def test_the_place_of_xmp_counts_if_exif_has_none(tmp_path: Path) -> None:
    read = read_header(write_photo(tmp_path / "a.jpg", xmp='exif:GPSLatitude="48,51.5N" exif:GPSLongitude="2,17,40W"'))
    assert (read.latitude, read.longitude) == (pytest.approx(48.858333), pytest.approx(-2.294444))


@pytest.mark.parametrize("place", [(0.0, 0.0), (91.0, 10.0), (45.0, 200.0)])
def test_impossible_places_are_none(tmp_path: Path, place: tuple[float, float]) -> None:
    read = read_header(write_photo(tmp_path / "a.jpg", place=place))
    assert (read.latitude, read.longitude) == (None, None)


@pytest.mark.parametrize(("suffix", "file_type"), [("jpg", "jpeg"), ("png", "png"), ("webp", "webp"), ("tif", "tiff")])
def test_the_file_type_follows_the_content(tmp_path: Path, suffix: str, file_type: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.gif")
    assert read_header(tmp_path / "a.gif").file_type == read_image(tmp_path / "a.gif").metadata.file_type == file_type


def test_an_image_without_metadata_has_only_a_type(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png") == Metadata(file_type="png")


def test_a_file_that_cannot_be_read_has_no_tags() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the disk failed")

    block = ExifBlock(Failing(), (0x0112,))
    assert block.integer(0x0112) is None and block.fractions(block.gps, 2) == []
