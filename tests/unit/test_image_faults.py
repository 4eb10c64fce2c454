"""Images look as in a browser: orientation in damaged metadata, and truncated JPEG files."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from miniclip.data.images import CUT_OFF, open_image, read_image
from miniclip.errors import UnreadableImage
from tests.support.drawing import encoded

RED, WHITE = (255, 0, 0), (255, 255, 255)
SIDEWAYS = struct.pack(">HHI", 0x0112, 3, 1) + b"\0\x06\0\0"


def wide() -> Image.Image:
    image = Image.new("RGB", (40, 20), WHITE)
    image.paste(RED, (0, 0, 8, 8))
    return image


def block(*entries: bytes) -> bytes:
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + b"".join(entries) + b"\0\0\0\0"


def with_app1(jpeg: bytes, *blocks: bytes) -> bytes:
    contents = [b"Exif\0\0" + one for one in blocks]
    return jpeg[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(c) + 2) + c for c in contents) + jpeg[2:]


def with_exif_chunk(png: bytes, exif: bytes) -> bytes:
    body = b"eXIf" + exif
    return png[:33] + struct.pack(">I", len(exif)) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


def stands_upright(source: bytes) -> bool:
    image = read_image(source)
    red, green, _ = image.image.getpixel((18, 1))
    return image.image.size == (20, 40) == (image.width_px, image.height_px) and red > 200 and green < 90


BAD_ENTRIES = {
    "a tag that points outside": struct.pack(">HHII", 0x010E, 2, 4000, 0xFFFFFF),
    "a type that is none": struct.pack(">HHII", 0x0100, 77, 1, 0),
    "an Exif IFD that is not there": struct.pack(">HHII", 0x8769, 4, 1, 0xFFFFFFF0),
    "a GPS IFD that is not there": struct.pack(">HHII", 0x8825, 4, 1, 0x7FFF0000),
    "an Exif IFD that is this one": struct.pack(">HHII", 0x8769, 4, 1, 8),
    "a count of four billion": struct.pack(">HHII", 0x0110, 2, 0xFFFFFFFF, 8),
    "a maker note outside": struct.pack(">HHII", 0x927C, 7, 60000, 60),
    "text in place of a number": struct.pack(">HHII", 0x011A, 5, 1, 0xFFFFFF00),
}


@pytest.mark.parametrize("bad", BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_a_bad_tag_loses_neither_orientation_nor_image(bad: bytes) -> None:
    jpeg, png = encoded(wide(), "JPEG", quality=95), encoded(wide(), "PNG")
    for entries in ((bad, SIDEWAYS), (SIDEWAYS, bad)):
        assert stands_upright(with_app1(jpeg, block(*entries)))
        assert stands_upright(with_exif_chunk(png, block(*entries)))
        assert stands_upright(encoded(wide(), "WEBP", exif=b"Exif\0\0" + block(*entries), lossless=True))


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack(">HHIB3x", 0x0112, 1, 1, 6),
        struct.pack(">HHII", 0x0112, 4, 1, 6),
        struct.pack(">HHIb3x", 0x0112, 6, 1, 6),
        struct.pack(">HHIB3x", 0x0112, 7, 1, 6),
        struct.pack(">HHIh2x", 0x0112, 8, 1, 6),
        struct.pack(">HHIi", 0x0112, 9, 1, 6),
        struct.pack(">HHIHH", 0x0112, 3, 2, 6, 0),
    ],
    ids=["BYTE", "LONG", "SBYTE", "UNDEFINED", "SSHORT", "SLONG", "two SHORTs"],
)
def test_orientation_may_be_any_integer(entry: bytes) -> None:
    assert stands_upright(with_app1(encoded(wide(), "JPEG", quality=95), block(entry)))


def test_a_directory_that_is_cut_off_keeps_its_tags() -> None:
    cut = b"MM\0*\0\0\0\x08" + struct.pack(">H", 500) + SIDEWAYS + b"\x01"
    assert stands_upright(with_app1(encoded(wide(), "JPEG", quality=95), cut))


def test_the_first_exif_block_with_a_tag_counts() -> None:
    jpeg = encoded(wide(), "JPEG", quality=95)
    nothing, upright = (
        block(struct.pack(">HHII", 0x0128, 3, 1, 0x20000)),
        block(struct.pack(">HHIHH", 0x0112, 3, 1, 1, 0)),
    )
    assert stands_upright(with_app1(jpeg, nothing, block(SIDEWAYS)))
    assert stands_upright(with_app1(jpeg, block(SIDEWAYS), upright))
    assert open_image(with_app1(jpeg, upright, block(SIDEWAYS))).size == (40, 20)
    assert stands_upright(with_app1(jpeg, b"no block at all", block(SIDEWAYS)))


def test_png_chunk_wins_over_a_profile_in_its_text() -> None:
    def raw_profile(exif: bytes) -> bytes:
        content = b"Exif\0\0" + exif
        text = b"Raw profile type exif\0\nexif\n" + b"%8d\n" % len(content) + content.hex().encode()
        return struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))

    upright = block(struct.pack(">HHIHH", 0x0112, 3, 1, 1, 0))
    png = encoded(wide(), "PNG")
    assert stands_upright(with_exif_chunk(png[:33] + raw_profile(upright) + png[33:], block(SIDEWAYS)))
    assert stands_upright(png[:33] + raw_profile(block(SIDEWAYS)) + png[33:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_and_jpeg_have_the_same_orientation(orientation: int) -> None:
    tiff = read_image(encoded(wide(), "TIFF", tiffinfo={0x0112: orientation}))
    jpeg = read_image(
        with_app1(encoded(wide(), "JPEG", quality=95), block(struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)))
    )
    assert tiff.image.size == jpeg.image.size == (tiff.width_px, tiff.height_px) == (jpeg.width_px, jpeg.height_px)
    assert np.abs(np.asarray(tiff.image, dtype=int) - np.asarray(jpeg.image, dtype=int)).mean() < 8


def test_tiff_with_a_pointer_outside_is_read() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x9999], tags.tagtype[0x9999] = 0x7FFFFFF0, 4
    tiff = encoded(wide(), "TIFF", tiffinfo=tags)
    own, pointer = struct.pack("<HHI", 0x9999, 4, 1), struct.pack("<HHI", 0x8769, 4, 1)
    assert own in tiff
    assert open_image(tiff.replace(own, pointer)).size == (40, 20)


def photo(**options: object) -> bytes:
    small = np.random.default_rng(0).integers(0, 256, (20, 26, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((416, 320), Image.Resampling.BICUBIC)
    return encoded(image, "JPEG", quality=90, **options)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}], ids=["plain", "progressive", "4:4:4"]
)
@pytest.mark.parametrize("lost", [1, 2, 3, 10, 30])
@pytest.mark.parametrize("min_size_px", [None, 64])
def test_a_jpeg_without_its_last_bytes_is_read_with_a_remark(
    options: dict[str, bool], lost: int, min_size_px: int | None, tmp_path: Path
) -> None:
    whole = photo(**options)
    (tmp_path / "a.jpg").write_bytes(whole[:-lost])
    for source in (tmp_path / "a.jpg", whole[:-lost]):
        image = read_image(source, min_size_px)
        assert image.remark == (CUT_OFF if lost else "")
        expected = np.asarray(open_image(whole).resize(image.image.size), dtype=int)
        assert np.abs(np.asarray(image.image, dtype=int) - expected).mean() < 8
    assert read_image(whole).remark == ""


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_jpeg_that_lacks_more_is_refused(share: float) -> None:
    whole = photo()
    with pytest.raises(UnreadableImage, match="truncated"):
        open_image(whole[: int(len(whole) * share)])
