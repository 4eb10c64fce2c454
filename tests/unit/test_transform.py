"""Resize, crop and normalise equal plain Pillow and numpy; preprocessor files are checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from tests.support.drawing import encoded, noise

# pytest removes the filter that `miniclip.data.images` sets for Pillow's warnings
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


SQUASH = ImageTransform(24, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
RED, WHITE = (255, 0, 0), (255, 255, 255)
CROP = ImageTransform(24, 24, (0.5,) * 3, (0.5,) * 3, resize_shortest_px=28)


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


@pytest.mark.parametrize("transform", [SQUASH, CROP], ids=["squash", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (5000, 10), (10, 5000), (60_000, 1)], ids=str)
def test_odd_shapes_work(transform: ImageTransform, size: tuple[int, int]) -> None:
    pixel_values = transform.load(encoded(Image.new("RGB", size, RED), "PNG"))
    assert pixel_values.shape == (3, transform.height_px, transform.width_px)
    expected = (np.array([1, 0, 0]) - transform.mean) / np.array(transform.std)
    assert np.abs(pixel_values - expected[:, None, None]).max() < 1e-5


def test_strip_keeps_its_middle() -> None:
    strip = Image.new("RGB", (3000, 10), WHITE)
    strip.paste(RED, (1480, 0, 1520, 10))
    assert np.asarray(CROP.fit(strip))[:, :, 1].max() == 0  # 24 of 28 pixels, which show 8.6 of the strip's pixels
