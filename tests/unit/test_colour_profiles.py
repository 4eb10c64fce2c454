"""Images have the colours that a browser shows: profiles of RGB, grey, CMYK and Lab."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from demo.previews import Previews
from miniclip.data.images import open_image
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.drawing import encoded
from tests.support.icc_profiles import cmyk_inks, display_p3, grey_gamma, matrix_profile, pro_photo

WHITE = (255, 255, 255)
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
