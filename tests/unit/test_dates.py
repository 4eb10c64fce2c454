"""Dates in every spelling and every tag, refused dates, and the day of editing."""

import io
import struct
import zlib
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from miniclip.data.dates import parse_date
from miniclip.data.images import read_header, read_image

NINE = datetime(2025, 1, 14, 9)
SPELLINGS = [
    "2025:01:14 09:00:00",
    "2025:01:14 09:00:00+0000",
    "2025:01:14 09:00:00+02:00",
    "2025:01:14 09:00:00Z",
    "2025:01:14 09:00:00.123",
    "2025-01-14 09:00:00",
    "2025-01-14T09:00:00",
    "2025/01/14 09:00:00",
    "2025:01:14 09:00",
    "2025:01:14T09:00:00.5+02:00",
    "2025.01.14 09:00:00",
    "2025:01:14  9: 0: 0",
    "2025:01:14 09:00:00 AM",
    "2025-01-14T09:00:00.000-08:00",
    "2025:01:14 09:00:00\0\0",
    "20250114 090000+0100",
    "20250114T090000Z",
    "Tue, 14 Jan 2025 09:00:00 +0000",
    "14 Jan 2025 09:00:00 GMT",
    "Tue Jan 14 09:00:00 2025",
    "2025:01:14 09h00m00s",
    "2025:01:14-09:00:00",
    "2025_01_14 09:00:00",
    "2025:01:14;09:00:00",
    "2025-01-14T09",
    "2025:01:14 0900",
    "2025:01:14 09:00:00 Europe/Berlin",
    "2025:01:14 09:00:00+0200 DST",
    "2025:01:14 09:00:00 -",
    "2025. 1. 14. 9:00:00",
    "14.01.2025 09:00:00",
    "14/01/2025 09:00",
    "01/14/2025 9:00 AM",
    "Tuesday, January 14, 2025 9:00:00 AM",
    "2025:01:14 \u4e0a\u53489:00:00",
    "2025:01:14 09\uff1a00\uff1a00",
    "\uff12\uff10\uff12\uff15:01:14 09:00:00",
    "\u0662\u0660\u0662\u0665:\u0660\u0661:\u0661\u0664 \u0660\u0669:\u0660\u0660:\u0660\u0660",
]


def exif_jpeg(**tags: str) -> bytes:
    """DateTimeOriginal, DateTimeDigitized and DateTime by name."""
    exif = Image.Exif()
    below = exif.get_ifd(0x8769)
    for name, text in tags.items():
        if name == "changed":
            exif[0x0132] = text
        else:
            below[{"original": 0x9003, "digitized": 0x9004}[name]] = text
    exif[0x8769] = below
    return encoded("JPEG", exif=exif)


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 60, 20)).save(stream, kind, **options)
    return stream.getvalue()


def with_app1(jpeg: bytes, *contents: bytes) -> bytes:
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content for content in contents)
    return jpeg[:2] + segments + jpeg[2:]


def xmp(inner: str) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r">{inner}</rdf:RDF></x:xmpmeta>'.encode()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def taken(source: bytes | Path) -> datetime | None:
    date = read_image(source).metadata.taken
    assert read_header(source).taken == date
    return date


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_a_day_is_that_day(text: str) -> None:
    assert parse_date(text) == NINE


@pytest.mark.parametrize("text", ["2025:01:14", "2025-01-14", "20250114", "2025:01:14 24:00:00", "2025:01:14 00:00:00"])
def test_a_day_alone_is_its_first_moment(text: str) -> None:
    assert parse_date(text) == datetime(2025, 1, 14)


def test_afternoon_is_after_noon() -> None:
    assert parse_date("2025:01:14 03:05:00 PM") == datetime(2025, 1, 14, 15, 5)
    assert parse_date("2025:01:14 \u4e0b\u53483:05:00") == datetime(2025, 1, 14, 15, 5)
    assert parse_date("2025:01:14 \uc624\ud6c4 3:05:00") == datetime(2025, 1, 14, 15, 5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000:00:00 00:00:00",
        "    :  :     :  :  ",
        "2999:01:01 00:00:00",
        "1700:01:01 00:00:00",
        "2025:13:01 00:00:00",
        "2025:02:30 10:00:00",
        "2025:01:14 25:00:00",
        "soon",
        "2025",
        "2025:01",
        "9" * 5000,
        "2025:00:00 00:00:00",
        "03/04/2025 09:00:00",  # March or April
        "14/14/2025 09:00:00",
        "2025:01:14 \u4e0a\u534819:00:00",
    ],
)
def test_impossible_dates_are_none(text: str) -> None:
    assert parse_date(text) is None


@pytest.mark.parametrize("text", [text for text in SPELLINGS if text.isascii()])
def test_every_spelling_is_read_from_exif(text: str) -> None:
    assert taken(exif_jpeg(original=text)) == NINE


def test_order_of_tags() -> None:
    assert taken(exif_jpeg(original="2025:01:14 09:00:00", digitized="2025:02:01 00:00:00")) == NINE
    assert taken(exif_jpeg(digitized="2025:01:14 09:00:00", changed="2026:01:01 00:00:00")) == NINE
    assert taken(exif_jpeg(changed="2025:01:14 09:00:00")) == NINE
    assert taken(exif_jpeg(original="2999:01:01 00:00:00", digitized="2025:01:14 09:00:00")) == NINE
    assert taken(exif_jpeg(original=" ", changed="2025:01:14 09:00:00")) == NINE


@pytest.mark.parametrize("original", ["next tuesday", "2999:01:01 00:00:00", "2025"])
def test_the_day_of_editing_does_not_replace_an_unreadable_date(original: str) -> None:
    assert taken(exif_jpeg(original=original, changed="2026:01:01 00:00:00")) is None


@pytest.mark.parametrize(
    "inner",
    [
        '<rdf:Description xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        'photoshop:DateCreated="2025-01-14T09:00:00"/>',
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/">'
        "<xmp:CreateDate>2025-01-14T09:00:00+02:00</xmp:CreateDate></rdf:Description>",
        "<rdf:Description xmlns:exif='http://ns.adobe.com/exif/1.0/' exif:DateTimeOriginal='2025-01-14T09:00'/>",
        '<rdf:Description xmlns:a="http://ns.adobe.com/exif/1.0/" a:DateTimeOriginal="2025-01-14T09:00:00Z"/>',
    ],
)
def test_xmp_is_read(inner: str) -> None:
    packet = xmp(inner)
    assert taken(with_app1(encoded("JPEG"), b"http://ns.adobe.com/xap/1.0/\0" + packet)) == NINE
    assert taken(encoded("WEBP", xmp=packet)) == NINE
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode())
    assert taken(encoded("PNG", pnginfo=info)) == NINE


def test_png_creation_time_is_read_also_behind_the_pixels() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Creation Time", "Tue, 14 Jan 2025 09:00:00 +0000")
    assert taken(encoded("PNG", pnginfo=info)) == NINE
    plain = encoded("PNG")
    text = chunk(b"tEXt", b"Creation Time\x002025:01:14 09:00:00")
    assert taken(plain[:-12] + text + plain[-12:]) == NINE
    time = chunk(b"tIME", struct.pack(">HBBBBB", 2025, 1, 14, 9, 0, 0))
    assert taken(plain[:-12] + time + plain[-12:]) == NINE
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2025:01:14 09:00:00"
    block = exif.tobytes()
    assert (
        taken(plain[:-12] + time.replace(b"\x07\xe9", b"\x07\xe8", 1) + chunk(b"eXIf", block[6:]) + plain[-12:]) == NINE
    )
    assert taken(encoded("PNG")) is None


def test_iptc_is_read() -> None:
    def dataset(number: int, value: bytes) -> bytes:
        return b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value

    iptc = dataset(55, b"20250114") + dataset(60, b"090000+0100")
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    content = b"Photoshop 3.0\0" + block
    jpeg = encoded("JPEG")
    segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
    assert taken(jpeg[:2] + segment + jpeg[2:]) == NINE


def test_gps_time_is_read_and_tiff_tags(tmp_path: Path) -> None:
    exif = Image.Exif()
    gps = exif.get_ifd(0x8825)
    gps[0x1D], gps[0x07] = "2025:01:14", (9.0, 0.0, 0.0)
    exif[0x8825] = gps
    assert taken(encoded("JPEG", exif=exif)) == NINE
    (tmp_path / "a.tif").write_bytes(encoded("TIFF", tiffinfo={306: "2025:01:14 09:00:00"}))
    assert taken(tmp_path / "a.tif") == NINE
    assert taken(encoded("TIFF", tiffinfo={306: "2025:01:14 09:00:00"})) == NINE
