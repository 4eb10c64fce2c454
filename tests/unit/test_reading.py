"""A file is read in one state even if it is replaced meanwhile; failures for lack of memory are retried."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miniclip.data.images import read_image
from miniclip.errors import MiniClipError, UnreadableImage, is_retryable
from miniclip.index import embed_file as reading
from miniclip.index.embed_file import KnownContents, read_file
from miniclip.index.scan_result import ImageFile
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.drawing import draw_image


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image that another one replaces after it was hashed and before it is decoded."""
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    draw_image("red", "circle").save(path)
    draw_image("blue", "triangle", seed=1).save(other)
    decode = reading.read_image

    def replace_and_decode(*arguments: Any) -> Any:
        if other.exists():
            os.replace(other, path)
        return decode(*arguments)

    monkeypatch.setattr(reading, "read_image", replace_and_decode)
    return path


def file_at(path: Path) -> ImageFile:
    return ImageFile(str(path), path.stat().st_size, path.stat().st_mtime_ns)


def test_hash_and_embedding_belong_to_the_same_content(encoders: OnnxEncoders, replaced: Path) -> None:
    content = replaced.read_bytes()
    (read,) = read_file(file_at(replaced), encoders, KnownContents())
    assert replaced.read_bytes() != content
    assert read.sha256 == hashlib.sha256(content).digest()
    assert read.image_embed is not None
    assert np.array_equal(read.image_embed[None], encoders.encode_images([content])[1].reshape(1, -1))


def test_a_large_file_that_changes_meanwhile_is_retried(
    encoders: OnnxEncoders, replaced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "IN_MEMORY_BYTES", 10)
    with pytest.raises(MiniClipError, match="it is being changed") as refused:
        read_file(file_at(replaced), encoders, KnownContents())
    assert is_retryable(refused.value)
    (read,) = read_file(file_at(replaced), encoders, KnownContents())  # it is not replaced now
    assert read.sha256 == hashlib.sha256(replaced.read_bytes()).digest()


def test_large_file_that_was_only_touched_is_read(
    encoders: OnnxEncoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    draw_image("red", "circle").save(path)
    monkeypatch.setattr(reading, "IN_MEMORY_BYTES", 10)
    decode = reading.read_image

    def touch_and_decode(*arguments: Any) -> Any:
        os.utime(path, (1, 1))
        return decode(*arguments)

    monkeypatch.setattr(reading, "read_image", touch_and_decode)
    (read,) = read_file(file_at(path), encoders, KnownContents())
    assert read.sha256 == hashlib.sha256(path.read_bytes()).digest()


PROGRAM = """
import re, resource, sys
from miniclip.data.images import read_image
from miniclip.errors import MiniClipError, is_retryable
used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, resource.RLIM_INFINITY))
try:
    read_image(sys.argv[1])
except MiniClipError as error:
    print(error, is_retryable(error), sep="|")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(read_image(sys.argv[1]).width_px)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_image_that_did_not_fit_into_memory_is_retried(tmp_path: Path) -> None:
    Image.new("RGB", (6000, 6000)).save(tmp_path / "a.png", compress_level=1)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.stdout.splitlines() == ["cannot be read (not enough memory)|True", "6000"], done.stderr


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.ENFILE, errno.EMFILE])
def test_a_lack_of_memory_or_packages_is_retried(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    draw_image("red", "circle").save(path)

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(UnreadableImage, match="damaged image") as refused:
        read_image(path)
    assert refused.value.retryable
    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(UnreadableImage, match="cannot be read") as refused:
        reading.hash_file(str(path))
    assert refused.value.retryable


def test_a_damaged_file_is_not_retried(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage) as refused:
        read_image(tmp_path / "a.png")
    assert not refused.value.retryable
