"""JPEG XL: decoded like other formats, upright, and refused before decoding if it is too large."""

import struct
from datetime import datetime
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from miniclip.data import images
from miniclip.data.images import open_image, opened_image, read_header, read_image
from miniclip.data.jpeg_xl import CODESTREAM
from miniclip.errors import UnreadableImage
from tests.support.camera_files import box, jpeg_xl

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
GREY = COLOURS[:, :, 0]
WHITE_ALPHA = np.dstack([COLOURS, np.full(GREY.shape, 255, np.uint8)])


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (COLOURS, COLOURS),
        (GREY, np.dstack([GREY] * 3)),
        (WHITE_ALPHA, COLOURS),
        (np.dstack([COLOURS, np.zeros_like(GREY)]), np.full_like(COLOURS, 255)),
        (COLOURS.astype(np.uint16) * 257, COLOURS),
        ((COLOURS / 255).astype(np.float32), COLOURS),
        (np.stack([COLOURS, 255 - COLOURS]), COLOURS),
    ],
    ids=["RGB", "grey", "opaque", "transparent", "16 bits", "float", "animation"],
)
def test_every_kind_of_pixels_is_shown_as_rgb(stored: np.ndarray, shown: np.ndarray) -> None:
    image = open_image(jpeg_xl(stored))
    assert image.mode == "RGB" and (np.asarray(image) == shown).all()


@pytest.mark.parametrize(
    ("width", "height"),
    [(16, 16), (96, 80), (120, 90), (150, 100), (160, 90), (200, 160), (200, 100), (8, 264), (61, 40), (1, 700)],
)
def test_the_header_gives_the_size_without_decoding(width: int, height: int) -> None:
    for content in (
        imagecodecs.jpegxl_encode(np.zeros((height, width, 3), np.uint8), lossless=True, usecontainer=in_container)
        for in_container in (False, True)
    ):
        with opened_image(content) as image:
            assert image.size == (width, height)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_the_codestream_is_applied(orientation: int) -> None:
    content = turned(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(COLOURS)
    stored.info["exif"] = exif.tobytes()
    upright = ImageOps.exif_transpose(stored)
    decoded = read_image(content)
    assert (np.asarray(decoded.image) == np.asarray(upright)).all()
    assert (decoded.width_px, decoded.height_px) == upright.size
    with opened_image(content) as image:
        assert image.size == upright.size


def turned(orientation: int) -> bytes:
    """An animation, because its header stores an orientation: three bits, the first of them bit 27."""
    content = bytearray(jpeg_xl(np.stack([COLOURS, COLOURS])))
    content[3] |= (orientation - 1) << 3 & 0xFF
    return bytes(content)


def test_date_and_camera_are_read_and_exif_does_not_rotate_again() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = 6, "Canon", "R5"
    exif[0x8769] = {0x9003: "2023:05:06 07:08:09"}
    content = jpeg_xl(COLOURS, exif.tobytes().removeprefix(b"Exif\0\0"))
    decoded = read_image(content)
    assert decoded.metadata.taken == datetime(2023, 5, 6, 7, 8, 9) and decoded.metadata.camera == "Canon R5"
    assert decoded.metadata.file_type == "jxl" and read_header(content) == decoded.metadata
    assert (decoded.width_px, decoded.height_px) == (60, 40) and (np.asarray(decoded.image) == COLOURS).all()


def test_a_codestream_in_parts_is_read() -> None:
    whole = jpeg_xl(COLOURS)
    parts = [struct.pack(">I", 0) + whole[:20], struct.pack(">I", 1 | 1 << 31) + whole[20:]]
    start = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    content = start + b"".join(box(b"jxlp", part) for part in parts)
    assert (np.asarray(open_image(content)) == COLOURS).all()


def test_an_image_that_claims_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    bits = 0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33  # a height of 30 bits, and the ratio 1:1
    content = CODESTREAM + bits.to_bytes(30, "little")
    with pytest.raises(UnreadableImage, match="178 million pixels"):
        open_image(content)


@pytest.mark.parametrize("length", [2, 12, 40, 400])
def test_a_truncated_file_is_unreadable(length: int) -> None:
    with pytest.raises(UnreadableImage):
        open_image(jpeg_xl(COLOURS)[:length])


def test_without_its_package_the_file_is_named_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "FORMATS", [name for name in images.FORMATS if name != "JXL"])
    (tmp_path / "a.jxl").write_bytes(jpeg_xl(COLOURS))
    with pytest.raises(UnreadableImage, match=r"JPEG XL images need one more package: .*\[jxl\]") as caught:
        open_image(tmp_path / "a.jxl")
    assert caught.value.retryable
