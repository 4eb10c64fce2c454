"""JPEG files with the metadata of cameras: make and model, date, place, rating."""

from pathlib import Path
from typing import Any

from PIL import Image

MAKE, MODEL, RATING, EXIF_IFD, GPS_IFD, ORIGINAL = 0x010F, 0x0110, 0x4746, 0x8769, 0x8825, 0x9003
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" {}/>'
    "</rdf:RDF></x:xmpmeta>"
)


def write_photo(
    path: Path,
    camera: tuple[str, str] | None = None,
    taken: str = "",
    place: tuple[float, float] | None = None,
    rating: int | None = None,
    xmp: str = "",
    size: tuple[int, int] = (48, 32),
    colour: Any = (200, 30, 30),
) -> Path:
    """Write one photograph. `taken` is in EXIF's spelling; `xmp` holds attributes such as `xmp:Rating="4"`."""
    exif = Image.Exif()
    if camera is not None:
        exif[MAKE], exif[MODEL] = camera
    if taken:
        exif[EXIF_IFD] = {ORIGINAL: taken}
    if rating is not None:
        exif[RATING] = rating
    if place is not None:
        exif[GPS_IFD] = gps_tags(*place)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"xmp": XMP.format(xmp).encode()} if xmp else {}
    Image.new("RGB", size, colour).save(path, exif=exif, **settings)
    return path


def gps_tags(latitude: float, longitude: float) -> dict[int, Any]:
    """Latitude and longitude as degrees, minutes and seconds."""
    return {
        1: "S" if latitude < 0 else "N",
        2: _parts(abs(latitude)),
        3: "W" if longitude < 0 else "E",
        4: _parts(abs(longitude)),
    }


def _parts(degrees: float) -> tuple[float, float, float]:
    minutes = degrees % 1 * 60
    return float(int(degrees)), float(int(minutes)), round(minutes % 1 * 60, 4)
