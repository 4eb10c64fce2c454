"""Images to numbers: every format, every kind of damage, and the transforms against plain Pillow and numpy."""

import io
import json
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from miniclip.data.images import open_image
from miniclip.data.prefetch import prefetch, prefetch_batches
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError

# pytest removes the filter that `miniclip.data.images` sets for Pillow's warnings
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
RED, WHITE = (255, 0, 0), (255, 255, 255)
SQUASH = ImageTransform(24, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
CROP = ImageTransform(24, 24, (0.5,) * 3, (0.5,) * 3, resize_shortest_px=28)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    """Smooth noise, as in photographs."""
    small = np.random.default_rng(0).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


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
    image = open_image(encode(Image.new("RGB", (40, 30), (200, 60, 20)), kind))
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
    image = open_image(encode(stored, "JPEG", exif=exif, quality=95), 20)
    assert image.size == size
    red, green, _ = image.getpixel(corner)
    assert red > 200 and green < 60


def test_unreadable_metadata_does_not_lose_the_image() -> None:
    broken = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + b"\x01\x12\x00\x09" * 3
    assert open_image(encode(Image.new("RGB", (40, 20), RED), "JPEG", exif=broken)).size == (40, 20)


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = open_image(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = image.getpixel((8, 8))
    assert image.mode == "RGB" and red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("value", [0, 200, 257, 30_000, 65_535])
def test_16_bit_grey_is_scaled_to_8_bits_where_its_range_is_used(value: int) -> None:
    values = np.full((9, 9), value, dtype=np.uint16)
    values[0, 0] = 5000
    image = open_image(encode(Image.fromarray(values), "PNG"))
    assert image.getpixel((4, 4)) == (value * 255 // 65535,) * 3


def test_float_tiff_with_gaps_is_read() -> None:
    values = np.full((8, 8), 130, dtype=np.float32)
    values[0, 0] = np.nan
    image = open_image(encode(Image.fromarray(values), "TIFF"))
    assert image.getpixel((4, 4)) == (130, 130, 130) and image.getpixel((0, 0)) == (0, 0, 0)


def test_transparency_becomes_white() -> None:
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half.paste((255, 0, 0, 255), (0, 0, 4, 8))
    palette = half.convert("RGB").quantize(4)
    transparent = palette.getpixel((7, 7))
    sources = [
        encode(half, "PNG"),
        encode(half.convert("LA"), "PNG"),
        encode(palette, "PNG", transparency=transparent),
        encode(palette, "GIF", transparency=transparent),
        encode(Image.new("RGB", (8, 8), (9, 9, 9)), "PNG", transparency=(9, 9, 9)),
    ]
    for source in sources:
        assert open_image(source).getpixel((7, 7)) == WHITE
    assert open_image(sources[2]).getpixel((1, 1)) == RED
    faint = open_image(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG")).getpixel((0, 0))
    assert all(abs(value - 127) <= 1 for value in faint)


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, WHITE, (0, 0, 255))]
    for kind in ("GIF", "WEBP", "TIFF"):
        red, green, _ = open_image(encode(frames[0], kind, save_all=True, append_images=frames[1:])).getpixel((4, 4))
        assert red > 240 and green < 15, kind


@pytest.mark.parametrize("transform", [SQUASH, CROP], ids=["squash", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (5000, 10), (10, 5000), (60_000, 1)], ids=str)
def test_odd_shapes_work(transform: ImageTransform, size: tuple[int, int]) -> None:
    pixel_values = transform.load(encode(Image.new("RGB", size, RED), "PNG"))
    assert pixel_values.shape == (3, transform.height_px, transform.width_px)
    expected = (np.array([1, 0, 0]) - transform.mean) / np.array(transform.std)
    assert np.abs(pixel_values - expected[:, None, None]).max() < 1e-5


def test_strip_keeps_its_middle() -> None:
    strip = Image.new("RGB", (3000, 10), WHITE)
    strip.paste(RED, (1480, 0, 1520, 10))
    assert np.asarray(CROP.fit(strip))[:, :, 1].max() == 0  # 24 of 28 pixels, which show 8.6 of the strip's pixels


# damage


def test_each_kind_of_damage_has_its_reason(tmp_path: Path) -> None:
    whole = encode(noise(200, 160), "JPEG")
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
        image = encode(noise(64, 64), kind)
        assert reason_of(image[: len(image) // 3]).startswith(("damaged image", "not an image"))


@pytest.mark.parametrize("size", [(60_000, 60_000), (13_400, 13_300), (2_000_000_000, 1)], ids=str)
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert reason_of(png_of_size(*size)) == "more than 178 million pixels; save it smaller"


def test_header_within_the_limit_is_refused_for_its_missing_pixels_only() -> None:
    assert reason_of(png_of_size(100, 100)).startswith("damaged image")


# reduced decoding


@pytest.mark.parametrize("min_size_px", [24, 100, 150, 600, 4000])
def test_reduced_decoding_is_never_smaller_than_requested(min_size_px: int) -> None:
    image = open_image(encode(noise(1210, 650), "JPEG"), min_size_px)
    assert min(image.size) >= min(min_size_px, 650)
    assert abs(image.width / image.height - 1210 / 650) < 0.05


def test_reduced_decoding_looks_like_full_decoding() -> None:
    source = encode(noise(1600, 1200), "JPEG", quality=92)
    transform = ImageTransform(96, 96, (0.0,) * 3, (1.0,) * 3)
    assert open_image(source, transform.min_size_px).width < 1600
    difference = np.abs(transform.load(source) - transform(open_image(source)))
    assert difference.mean() < 0.01 and difference.max() < 0.1


def test_only_jpeg_is_reduced() -> None:
    assert open_image(encode(noise(400, 300), "PNG"), 24).size == (400, 300)


# transforms


def test_squash_equals_plain_pillow_and_numpy() -> None:
    image = noise(90, 50)
    resized = np.asarray(image.resize((32, 24), Image.Resampling.BICUBIC), dtype=np.float64)
    expected = ((resized / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.3, 0.4)).transpose(2, 0, 1)
    pixel_values = SQUASH(image)
    assert (pixel_values.dtype, pixel_values.flags.c_contiguous) == (np.float32, True)
    assert np.abs(pixel_values - expected).max() < 1e-5


@pytest.mark.parametrize("size", [(90, 50), (50, 90), (28, 28)], ids=str)
def test_crop_equals_plain_pillow_and_numpy(size: tuple[int, int]) -> None:
    image = noise(*size)
    scale = 28 / min(size)
    width, height = (int(edge * scale) for edge in size)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    left, top = (width - 24) // 2, (height - 24) // 2
    expected = (resized[top : top + 24, left : left + 24] / 255 - 0.5) / 0.5
    assert np.abs(CROP(image) - expected.transpose(2, 0, 1)).max() < 1e-5


SQUASH_AND_CROP = ImageTransform(24, 20, (0.5,) * 3, (0.5,) * 3, squash_px=(30, 28))


def test_a_squashed_image_is_cropped_to_its_middle() -> None:
    image = noise(61, 40)
    resized = np.asarray(image.resize((28, 30), Image.Resampling.BICUBIC), dtype=np.float64)
    expected = (resized[3:27, 4:24] / 255 - 0.5) / 0.5
    assert np.abs(SQUASH_AND_CROP(image) - expected.transpose(2, 0, 1)).max() < 1e-5


@pytest.mark.parametrize(
    ("own", "expected"),
    [  # of a white and of a black pixel, by the processor's own steps: scale, shift, normalise, normalise again
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, (1, -1)),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, ((1 - 0.4) / 0.2, (-1 - 0.4) / 0.2)),
        ({"include_top": True}, ((1 - 0.4) / 0.2 / 0.2, -0.4 / 0.2 / 0.2)),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": True}, (15, -35)),
    ],
)
def test_efficientnet_shifts_pixels_and_divides_twice(
    own: dict[str, Any], expected: tuple[float, float], tmp_path: Path
) -> None:
    values = {"size": {"height": 8, "width": 8}, "image_mean": [0.4] * 3, "image_std": [0.2] * 3, **own}
    (tmp_path / "p.json").write_text(json.dumps(values))
    transform = ImageTransform.from_file(tmp_path / "p.json")
    for colour, value in zip(("white", "black"), expected, strict=True):
        np.testing.assert_allclose(transform(Image.new("RGB", (8, 8), colour)), value, rtol=1e-4)


def test_the_preprocessor_of_a_backbone_sets_only_colours(tmp_path: Path) -> None:
    colours = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "resample": 2}
    expected = ImageTransform(96, 96, (0.4,) * 3, (0.2,) * 3, resample=2)
    for own in (
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875},  # ResNet, ConvNeXt
        {"size": 256, "crop_size": 224, "do_center_crop": True},  # DeiT
    ):
        (tmp_path / "p.json").write_text(json.dumps({**own, **colours}))
        assert ImageTransform.for_backbone(tmp_path / "p.json", 96) == expected
    mobilevit = {"size": {"shortest_edge": 288}, "crop_size": 256, "do_flip_channel_order": True}
    (tmp_path / "p.json").write_text(json.dumps(mobilevit))
    assert ImageTransform.for_backbone(tmp_path / "p.json", 96) == ImageTransform(96, 96, (0.0,) * 3, (1.0,) * 3)
    (tmp_path / "p.json").write_text(json.dumps({**colours, "do_sharpen": True}))
    with pytest.raises(MiniClipError, match="do_sharpen"):
        ImageTransform.for_backbone(tmp_path / "p.json", 96)


@pytest.mark.parametrize("transform", [SQUASH, CROP, SQUASH_AND_CROP], ids=["squash", "crop", "squash and crop"])
def test_preprocessor_file_reads_back_equal(transform: ImageTransform, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(transform.to_dict()))
    assert ImageTransform.from_file(tmp_path / "p.json") == transform


def test_short_forms_of_preprocessors_are_read(tmp_path: Path) -> None:
    values = {"size": 28, "do_center_crop": True, "crop_size": 24, "image_mean": 0.5, "image_std": [0.5] * 3}
    (tmp_path / "p.json").write_text(json.dumps(values))
    assert ImageTransform.from_file(tmp_path / "p.json") == CROP
    (tmp_path / "p.json").write_text(json.dumps({"size": {"height": 8, "width": 9}, "do_normalize": False}))
    assert ImageTransform.from_file(tmp_path / "p.json") == ImageTransform(8, 9, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    "change",
    [
        {"size": None},
        {"size": "224"},
        {"size": 224.5},
        {"size": {}},
        {"size": {"height": 24}},
        {"size": {"height": 0, "width": 24}},
        {"size": {"height": -3, "width": 24}},
        {"size": {"height": 1e400, "width": 24}},
        {"size": {"height": 10**9, "width": 24}},
        {"size": {"shortest_edge": 28}},
        {"do_center_crop": True, "crop_size": [24, 24]},
        {"resample": 99},
        {"resample": "bicubic"},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": "grey"},
        {"image_mean": [0.5, 0.5, float("nan")]},
        {"image_std": [0.5, 0.5, 0]},
        {"image_std": None},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": None},
        {"do_rescale": False},
    ],
    ids=str,
)
def test_malformed_preprocessor_is_refused_in_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**SQUASH.to_dict(), **change}))
    with pytest.raises(MiniClipError, match=r"preprocessor_config\.json is not an image preprocessor") as refused:
        ImageTransform.from_file(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b'"size"', b"{", b"\xff\xfe{", b"[" * 100_000])
def test_file_that_is_no_json_object_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_bytes(content)
    with pytest.raises(MiniClipError, match="preprocessor"):
        ImageTransform.from_file(path)


def test_missing_preprocessor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match=r"cannot read .*No such file"):
        ImageTransform.from_file(tmp_path / "preprocessor_config.json")


# prefetching


def test_reading_ahead_keeps_the_order_and_its_bound() -> None:
    lock, started, consumed, most_ahead = threading.Lock(), 0, 0, 0

    def load(source: Any) -> int:
        nonlocal started, most_ahead
        with lock:
            started += 1
            most_ahead = max(most_ahead, started - consumed)
        if source == b"7":
            raise MiniClipError("seven")
        return int(source)

    results = []
    for row, loaded in prefetch([str(n).encode() for n in range(50)], load, ahead=6, workers=4):
        results.append((row, str(loaded)))
        with lock:
            consumed += 1
    assert results == [(n, "seven" if n == 7 else str(n)) for n in range(50)]
    assert 1 < most_ahead <= 7  # the current image and six ahead


def test_stopping_early_leaves_no_thread_and_no_work() -> None:
    loaded: list[Any] = []
    before = threading.active_count()
    ahead = prefetch([b"%d" % n for n in range(1000)], lambda source: loaded.append(source), ahead=8, workers=2)
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
    assert len(loaded) <= 9


def test_an_unexpected_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        list(prefetch([b"0"], lambda source: 1 // int(source), ahead=2))


def test_batches_skip_unreadable_images_and_name_them() -> None:
    good = encode(noise(30, 30), "PNG")
    sources = [good, b"no", good, good, b"", good, good]
    told: dict[int, MiniClipError] = {}
    batches = list(prefetch_batches(sources, SQUASH.load, 2, told.__setitem__))
    assert [rows.tolist() for rows, _ in batches] == [[0, 2], [3, 5], [6]]
    assert [pixel_values.shape for _, pixel_values in batches] == [(2, 3, 24, 32), (2, 3, 24, 32), (1, 3, 24, 32)]
    assert sorted(told) == [1, 4] and "not an image" in str(told[1])
    assert list(prefetch_batches([], SQUASH.load, 2, told.__setitem__)) == []


def test_threads_leave_pythons_warnings_as_they_were() -> None:
    sources = [encode(Image.new("P", (8, 8)), "PNG", transparency=b"\x00\x10")] * 200
    before = list(warnings.filters)
    assert sum(len(rows) for rows, _ in prefetch_batches(sources, SQUASH.load, 16, lambda row, reason: None)) == 200
    assert list(warnings.filters) == before


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

    with pytest.raises(MiniClipError, match="a run-length BMP of more than 8,192 pixels an edge; save it as PNG"):
        open_image(bitmap(170_000_000, 1))
    assert open_image(bitmap(64, 64)).size == (64, 64)
