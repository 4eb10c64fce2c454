"""Images open in every format; every kind of damage has its reason; large images are decoded at reduced size."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from miniclip.data.images import open_image
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from tests.support.drawing import encoded, noise

# pytest removes the filter that `miniclip.data.images` sets for Pillow's warnings
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
RED, WHITE = (255, 0, 0), (255, 255, 255)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size but holds almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def reason_of(source: Any) -> str:
    with pytest.raises(MiniClipError) as refused:
        open_image(source, 24)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# formats and modes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_every_format_decodes_to_its_pixels(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    image = open_image(encoded(Image.new("RGB", (40, 30), (200, 60, 20)), kind))
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert np.abs(np.asarray(image, dtype=int) - (200, 60, 20)).max() <= 6


def test_path_text_and_bytes_are_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise(40, 30).save(path)
    for source in (path, str(path), path.read_bytes()):
        assert np.array_equal(np.asarray(open_image(source)), np.asarray(noise(40, 30)))


@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [(1, (40, 20), (0, 0)), (3, (40, 20), (39, 19)), (6, (20, 40), (19, 0)), (8, (20, 40), (0, 39))],
)
def test_exif_orientation_turns_the_image_upright(
    orientation: int, size: tuple[int, int], corner: tuple[int, int]
) -> None:
    stored = Image.new("RGB", (40, 20), WHITE)
    stored.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(stored, "JPEG", exif=exif, quality=95), 20)
    assert image.size == size
    red, green, _ = image.getpixel(corner)
    assert red > 200 and green < 60


def test_unreadable_metadata_does_not_lose_the_image() -> None:
    broken = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + b"\x01\x12\x00\x09" * 3
    assert open_image(encoded(Image.new("RGB", (40, 20), RED), "JPEG", exif=broken)).size == (40, 20)


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = open_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = image.getpixel((8, 8))
    assert image.mode == "RGB" and red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("value", [0, 200, 257, 30_000, 65_535])
def test_16_bit_grey_is_scaled_to_8_bits_where_its_range_is_used(value: int) -> None:
    values = np.full((9, 9), value, dtype=np.uint16)
    values[0, 0] = 5000
    image = open_image(encoded(Image.fromarray(values), "PNG"))
    assert image.getpixel((4, 4)) == (value * 255 // 65535,) * 3


def test_float_tiff_with_gaps_is_read() -> None:
    values = np.full((8, 8), 130, dtype=np.float32)
    values[0, 0] = np.nan
    image = open_image(encoded(Image.fromarray(values), "TIFF"))
    assert image.getpixel((4, 4)) == (130, 130, 130) and image.getpixel((0, 0)) == (0, 0, 0)


def test_transparency_becomes_white() -> None:
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half.paste((255, 0, 0, 255), (0, 0, 4, 8))
    palette = half.convert("RGB").quantize(4)
    transparent = palette.getpixel((7, 7))
    sources = [
        encoded(half, "PNG"),
        encoded(half.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=transparent),
        encoded(palette, "GIF", transparency=transparent),
        encoded(Image.new("RGB", (8, 8), (9, 9, 9)), "PNG", transparency=(9, 9, 9)),
    ]
    for source in sources:
        assert open_image(source).getpixel((7, 7)) == WHITE
    assert open_image(sources[2]).getpixel((1, 1)) == RED
    faint = open_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG")).getpixel((0, 0))
    assert all(abs(value - 127) <= 1 for value in faint)


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, WHITE, (0, 0, 255))]
    for kind in ("GIF", "WEBP", "TIFF"):
        red, green, _ = open_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:])).getpixel((4, 4))
        assert red > 240 and green < 15, kind


# damage


def test_each_kind_of_damage_has_its_reason(tmp_path: Path) -> None:
    whole = encoded(noise(200, 160), "JPEG")
    (tmp_path / "text.jpg").write_text("I am no image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert "not an image in a known format" in reason_of(tmp_path / "text.jpg")
    assert "not an image in a known format" in reason_of(tmp_path / "empty.jpg")
    assert "truncated" in reason_of(tmp_path / "cut.jpg")
    assert reason_of(tmp_path / "folder.jpg") == "a folder, not an image"
    assert reason_of(tmp_path / "none.jpg") == "no such file"
    assert str(tmp_path) not in reason_of(tmp_path / ("long" * 100))
    for kind in ("PNG", "WEBP", "GIF", "TIFF", "BMP"):
        image = encoded(noise(64, 64), kind)
        assert reason_of(image[: len(image) // 3]).startswith(("damaged image", "not an image"))


@pytest.mark.parametrize("size", [(60_000, 60_000), (13_400, 13_300), (2_000_000_000, 1)], ids=str)
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert reason_of(png_of_size(*size)) == "more than 178 million pixels; save it smaller"


def test_header_within_the_limit_is_refused_for_its_missing_pixels_only() -> None:
    assert reason_of(png_of_size(100, 100)).startswith("damaged image")


# reduced decoding


@pytest.mark.parametrize("min_size_px", [24, 100, 150, 600, 4000])
def test_reduced_decoding_is_never_smaller_than_requested(min_size_px: int) -> None:
    image = open_image(encoded(noise(1210, 650), "JPEG"), min_size_px)
    assert min(image.size) >= min(min_size_px, 650)
    assert abs(image.width / image.height - 1210 / 650) < 0.05


def test_reduced_decoding_looks_like_full_decoding() -> None:
    source = encoded(noise(1600, 1200), "JPEG", quality=92)
    transform = ImageTransform(96, 96, (0.0,) * 3, (1.0,) * 3)
    assert open_image(source, transform.min_size_px).width < 1600
    difference = np.abs(transform.load(source) - transform(open_image(source)))
    assert difference.mean() < 0.01 and difference.max() < 0.1


def test_only_jpeg_is_reduced() -> None:
    assert open_image(encoded(noise(400, 300), "PNG"), 24).size == (400, 300)


def test_a_run_length_bmp_of_gigabytes_is_refused() -> None:
    def bitmap(width_px: int, height_px: int) -> bytes:
        """Black, 8 bits per pixel, with one jump of 255 rows: CVE-2026-96638."""
        size = 54 + 1024
        head = b"BM" + struct.pack("<IHHI", size + 4, 0, 0, size)
        return (
            head
            + struct.pack("<IiiHHIIiiII", 40, width_px, height_px, 1, 8, 1, 0, 0, 0, 256, 0)
            + bytes(1024)
            + b"\x00\x02\xff\xff"
        )

    with pytest.raises(MiniClipError, match="a run-length BMP with an edge of more than 8,192 pixels; save it as PNG"):
        open_image(bitmap(170_000_000, 1))
    assert open_image(bitmap(64, 64)).size == (64, 64)
