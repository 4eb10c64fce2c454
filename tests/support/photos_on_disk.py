"""Photographs with all metadata of a camera, in a folder that a test may change."""

from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tests.support.drawing import COLOURS, SHAPES, draw_image

CAMERA, LENS, PLACE = "Canon EOS R5", "RF24-70mm F2.8", "48.20820, 16.37380"


def write_photos(folder: Path, count: int = 6, size: tuple[int, int] = (1600, 1200)) -> list[Path]:
    """JPEGs `photo-0.jpg`, `photo-1.jpg`, ..., each of another motif, with camera, lens, exposure, date and place."""
    folder.mkdir(parents=True, exist_ok=True)
    motifs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    paths = [folder / f"photo-{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        draw_image(*motifs[number % len(motifs)], size, seed=number).save(path, exif=_exif(number))
    return paths


def _exif(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", CAMERA
    exif.get_ifd(0x8769).update(
        {
            0x829A: IFDRational(1, 250),
            0x829D: IFDRational(28, 10),
            0x8827: 200,
            0x920A: IFDRational(35, 1),
            0xA434: LENS,
            0x9003: f"2024:07:{number + 1:02} 12:00:00",
        }
    )
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 29.52), 3: "E", 4: (16.0, 22.0, 25.68)})
    return exif
