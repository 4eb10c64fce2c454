"""Images of more than 8 bits keep their contrast, and large ones are in memory once; both as in plain numpy."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniclip.data import colour
from miniclip.data.images import open_image

RAMP = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


def grey_of(values: np.ndarray, kind: str = "TIFF") -> np.ndarray:
    """(H, W): the grey levels for one number per pixel."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind)
    rgb = np.asarray(open_image(stream.getvalue()))
    assert (rgb == rgb[:, :, :1]).all()
    return rgb[:, :, 0]


@pytest.mark.parametrize(
    ("values", "kind", "black", "white"),
    [
        (RAMP, "TIFF", 0, 1),
        (RAMP * 2 - 1, "TIFF", -1, 1),
        (RAMP * 1.05, "TIFF", 0, 1),
        (RAMP * 7, "TIFF", 0, 7),
        (RAMP * 255, "TIFF", 0, 255),
        (RAMP * 60, "TIFF", 0, 255),
        (RAMP * 3000, "TIFF", 0, 4095),
        (RAMP * 65_535, "TIFF", 0, 65_535),
        (RAMP * (2**20 - 1), "TIFF", 0, 2**20 - 1),
        ((RAMP * 4095).astype(np.uint16), "PNG", 0, 4095),
        ((RAMP * 1000).astype(np.uint16), "PNG", 0, 1023),
        ((RAMP * 65_535).astype(np.uint16), "PNG", 0, 65_535),
        ((RAMP * 16_383).astype(np.uint16), "PNG", 0, 65_535),
        ((RAMP * 4095).astype(np.int32), "TIFF", 0, 4095),
        ((RAMP * 200).astype(np.int32), "TIFF", 0, 255),
    ],
    ids=lambda value: f"{value.dtype}-to-{value.max():g}" if isinstance(value, np.ndarray) else str(value),
)
def test_the_range_of_an_image_follows_from_its_values(values: np.ndarray, kind: str, black: int, white: int) -> None:
    expected = ((values.astype(np.float64) - black) * 255 / (white - black)).clip(0, 255)
    assert np.abs(grey_of(values, kind) - expected).max() <= 1


def test_gaps_and_infinite_values_do_not_stretch_the_range() -> None:
    values = np.array([[-9999, -np.inf, np.nan, 0], [0.25, 0.5, 1, np.inf]], dtype=np.float32)
    assert grey_of(values).tolist() == [[0, 0, 0, 0], [63, 127, 255, 255]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "CMYK", "I;16", "F"])
def test_a_large_image_converted_in_bands_is_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (67, 53, 4), dtype=np.uint8)
    grey = noise[:, :, 0]
    if mode in ("I;16", "F"):
        image = Image.fromarray(grey.astype(np.uint16) * 9 if mode == "I;16" else grey.astype(np.float32) / 255)
    else:
        image = Image.fromarray(noise).convert("LA" if mode == "LA" else "RGBA" if mode == "RGBA" else "RGB")
        image = image.quantize(16) if mode == "P" else image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF" if mode in ("CMYK", "F") else "PNG", **({"transparency": 3} if mode == "P" else {}))
    whole = np.asarray(open_image(stream.getvalue()))
    monkeypatch.setattr(colour, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(colour, "BAND_PIXELS", 500)
    assert np.array_equal(np.asarray(open_image(stream.getvalue())), whole)


PROGRAM = """
import resource, sys
from miniclip.data.transform import ImageTransform
transform = ImageTransform(64, 64, (0.5,) * 3, (0.5,) * 3)
transform.load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
transform.load(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB there")
@pytest.mark.parametrize(("mode", "copies"), [("RGB", 1), ("RGBA", 2)])
def test_large_image_is_in_memory_once_and_its_conversion_once(mode: str, copies: int, tmp_path: Path) -> None:
    edge = 7000
    Image.new(mode, (64, 64)).save(tmp_path / "small.png")
    Image.new(mode, (edge, edge)).save(tmp_path / "large.png", compress_level=1)
    command = [sys.executable, "-c", PROGRAM, tmp_path / "small.png", tmp_path / "large.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout) < (copies + 0.5) * 4 * edge * edge
