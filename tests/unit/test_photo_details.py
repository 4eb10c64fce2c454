"""The details of a photograph in the viewer: camera, lens, exposure, size and place."""

from pathlib import Path

import pytest
from PIL import Image

from miniclip.data.metadata import Metadata
from miniclip.data.photo_details import PhotoDetails, read_photo_details
from miniclip.errors import UnreadableImage
from tests.support.photos_on_disk import CAMERA, LENS, PLACE, write_photos


def test_everything_that_a_camera_wrote_is_read(tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path, 1)
    details = read_photo_details(path)
    assert (details.metadata.camera, details.lens, details.place) == (CAMERA, LENS, PLACE)
    assert details.exposure == "1/250 s, f/2.8, ISO 200, 35 mm"
    assert (details.width_px, details.height_px) == (1600, 1200)


def test_the_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "side.jpg", exif=exif)
    details = read_photo_details(tmp_path / "side.jpg")
    assert (details.width_px, details.height_px) == (30, 40)


def test_an_image_without_tags_has_only_a_size(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "plain.png")
    details = read_photo_details(tmp_path / "plain.png")
    assert (details.exposure, details.place, details.lens, details.metadata.camera) == ("", "", None, None)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UnreadableImage):
        read_photo_details(tmp_path / "text.jpg")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1 / 8000, "1/8000 s"), (1 / 3, "1/3 s"), (0.5, "0.5 s"), (30.0, "30 s"), (None, "")]
)
def test_exposures_are_written_as_on_a_camera(seconds: float | None, shown: str) -> None:
    assert PhotoDetails(Metadata(), 1, 1, exposure_s=seconds).exposure == shown
