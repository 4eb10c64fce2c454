"""Images look as in a browser: colour profiles, orientation in damaged metadata, truncated JPEG files."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from demo.previews import Previews
from miniclip.data.images import CUT_OFF, open_image, read_image
from miniclip.errors import UnreadableImage
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.icc_profiles import cmyk_inks, display_p3, grey_gamma, matrix_profile, pro_photo

RED, WHITE = (255, 0, 0), (255, 255, 255)
SIDEWAYS = struct.pack(">HHI", 0x0112, 3, 1) + b"\0\x06\0\0"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


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


# colours

COLOURS = [(200, 60, 20), (60, 220, 80), (60, 50, 220), (128, 128, 128), (255, 255, 255), (0, 0, 0)]


def in_profile(profile: bytes, mode: str, colour: tuple[int, int, int]) -> tuple[int, ...]:
    """The values of an sRGB colour in another profile."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    pixel = Image.new("RGB", (1, 1), colour)
    other = ImageCms.profileToProfile(pixel, ImageCms.createProfile("sRGB"), opened, outputMode=mode)
    assert other is not None
    value = other.getpixel((0, 0))
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize(
    "profile", [display_p3(), pro_photo(), matrix_profile("adobe rgb")], ids=["P3", "ProPhoto", "Adobe RGB"]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("colour", COLOURS)
def test_profiles_become_srgb(profile: bytes, kind: str, colour: tuple[int, int, int]) -> None:
    stored = in_profile(profile, "RGB", colour)
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98} if kind == "JPEG" else {}
    image = open_image(encoded(Image.new("RGB", (16, 16), stored), kind, icc_profile=profile, **options))
    assert np.abs(np.array(image.getpixel((8, 8))) - colour).max() <= 6
    assert "icc_profile" not in image.info


def test_profiles_apply_to_transparency_palettes_and_large_images() -> None:
    profile, colour = display_p3(), (200, 60, 20)
    stored = in_profile(profile, "RGB", colour)
    half = Image.new("RGBA", (16, 16), (*stored, 0))
    half.paste((*stored, 255), (0, 0, 8, 16))
    image = open_image(encoded(half, "PNG", icc_profile=profile))
    assert np.abs(np.array(image.getpixel((2, 2))) - colour).max() <= 3 and image.getpixel((14, 2)) == WHITE
    palette = Image.new("RGB", (16, 16), stored).quantize(4)
    assert (
        np.abs(np.array(open_image(encoded(palette, "PNG", icc_profile=profile)).getpixel((2, 2))) - colour).max() <= 3
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize(
    ("stored", "profile", "shown"),
    [
        (Image.new("L", (16, 16), 55), grey_gamma(1.0), 128),  # linear light
        (Image.new("L", (16, 16), 128), grey_gamma(1.8), 144),
        (Image.new("L", (16, 16), 128), pro_photo(), 144),  # an RGB profile with the same gamma
        (Image.new("LA", (16, 16), (55, 255)), grey_gamma(1.0), 128),
        (Image.fromarray(np.full((16, 16), 55 * 257, dtype=np.uint16)), grey_gamma(1.0), 128),
    ],
    ids=["linear", "gamma 1.8", "ProPhoto", "transparent", "16 bits"],
)
def test_grey_profiles_are_read(kind: str, stored: Image.Image, profile: bytes, shown: int) -> None:
    if kind == "JPEG" and stored.mode != "L":
        kind = "PNG"
    image = open_image(encoded(stored, kind, icc_profile=profile))
    assert np.abs(np.array(image.getpixel((2, 2))) - shown).max() <= 2


INKS = {  # colours of a press, far from the plain formula
    (0, 0, 0, 0): (255, 255, 255),
    (1, 0, 0, 0): (0, 158, 224),
    (0, 1, 0, 0): (230, 0, 126),
    (0, 0, 1, 0): (255, 237, 0),
    (0, 1, 1, 0): (227, 6, 19),
    (0, 0, 0, 1): (29, 29, 27),
}


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
@pytest.mark.parametrize("ink", INKS, ids=lambda ink: "".join(map(str, ink)))
def test_cmyk_has_the_colours_of_its_press_profile(kind: str, ink: tuple[int, ...]) -> None:
    stored = Image.new("CMYK", (16, 16), tuple(255 * part for part in ink))
    options = {"quality": 98} if kind == "JPEG" else {}
    image = open_image(encoded(stored, kind, icc_profile=cmyk_inks(INKS), **options))
    assert image.mode == "RGB" and np.abs(np.array(image.getpixel((8, 8))) - INKS[ink]).max() <= 5
    for damaged in (cmyk_inks(INKS)[:300], display_p3(), b"x" * 500):  # ignored, so the plain formula applies
        plain = open_image(encoded(stored, kind, icc_profile=damaged, **options))
        assert np.abs(np.array(plain.getpixel((8, 8))) - stored.convert("RGB").getpixel((8, 8))).max() <= 5


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("profile", [True, False, b"x" * 500], ids=["Lab profile", "no profile", "damaged"])
def test_lab_becomes_srgb(colour: tuple[int, int, int], profile: bool | bytes) -> None:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    stored = ImageCms.profileToProfile(Image.new("RGB", (16, 16), colour), srgb, lab, outputMode="LAB")
    assert stored is not None
    content = ImageCms.ImageCmsProfile(lab).tobytes() if profile is True else profile or None
    image = open_image(encoded(stored, "TIFF", icc_profile=content))
    assert np.abs(np.array(image.getpixel((8, 8))) - colour).max() <= 6


def test_encoder_and_preview_see_the_same_colours(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    inks, ink = cmyk_inks(INKS), (1, 0, 0, 0)
    for number, (stored, kind, profile) in enumerate(
        (
            (Image.new("CMYK", (64, 64), tuple(255 * part for part in ink)), "JPEG", inks),
            (Image.new("RGB", (64, 64), in_profile(display_p3(), "RGB", INKS[ink])), "PNG", display_p3()),
            (Image.new("RGB", (64, 64), INKS[ink]), "PNG", None),
        )
    ):
        (tmp_path / "photos" / f"{number}.{kind.lower()}").write_bytes(encoded(stored, kind, icc_profile=profile))
    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32")
    update_index(str(tmp_path / "photos"), encoders, tmp_path / "index")
    index = ImageIndex.open(tmp_path / "index")
    pixel_values = [encoders.transform.load(path) for path in index.paths]
    assert max(np.abs(one - pixel_values[-1]).max() for one in pixel_values) < 0.15  # 5 levels of 255, normalised
    for row in range(3):
        with Image.open(io.BytesIO(Previews(index).webp(row))) as preview:
            assert np.abs(np.array(preview.getpixel((32, 32))) - INKS[ink]).max() <= 6
            assert "icc_profile" not in preview.info


@pytest.mark.parametrize(
    "profile",
    [b"", b"x" * 10, b"x" * 4000, display_p3()[:200], display_p3()[:-60], grey_gamma(2.2), b"\0" * 200],
    ids=["empty", "short", "letters", "head only", "cut off", "of grey", "zeros"],
)
def test_damaged_and_unsuitable_profiles_are_ignored(profile: bytes) -> None:
    image = open_image(encoded(Image.new("RGB", (16, 16), (200, 60, 20)), "PNG", icc_profile=profile))
    assert np.abs(np.array(image.getpixel((2, 2))) - (200, 60, 20)).max() <= 40


def test_srgb_profile_changes_no_pixel() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = open_image(encoded(noise, "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(image), np.asarray(noise))


# truncated JPEG files


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
