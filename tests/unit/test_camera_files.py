"""Files of cameras and phones: RAW files by their previews, JPEG 2000, several frames of animations."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from miniclip.data.images import open_image, read_header, read_image
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.camera_files import (
    OTHER,
    OTHER_FILES,
    RAW_FILES,
    SIZE,
    SKIPPED_FILES,
    UNREADABLE_FILES,
    WANTED,
    animation,
    cr2,
    cr3,
    encode,
    raf,
    thumbnail_first,
    with_own_start,
    write_camera_files,
)
from tests.support.indexing import encoders

__all__ = ["encoders"]  # a fixture
NEAR = 8  # of 255: JPEG changes colours


def is_near(image: object, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.asarray(image, dtype=int)[5:-5, 5:-5] - colour).max() <= NEAR)


@pytest.mark.parametrize("name", RAW_FILES)
def test_a_raw_file_shows_its_largest_preview_and_its_date(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(RAW_FILES[name]())
    for source in (path, path.read_bytes()):
        decoded = read_image(source)
        assert (decoded.width_px, decoded.height_px) == SIZE and is_near(decoded.image, WANTED)
        assert decoded.metadata.taken == datetime(2023, 5, 6, 7, 8, 9) and decoded.metadata.file_type == "raw"
        assert read_header(source) == decoded.metadata


@pytest.mark.parametrize(
    "content",
    [
        thumbnail_first("NIKON", orientation=6),
        cr2(orientation=6),
        cr3(orientation=6),
        raf(orientation=6),
        with_own_start(b"IIRO", "OLYMPUS", orientation=6),
    ],
    ids=["nef", "cr2", "cr3", "raf", "orf"],
)
def test_a_preview_has_the_orientation_of_its_raw_file(content: bytes) -> None:
    decoded = read_image(content)
    assert decoded.image.size == (decoded.width_px, decoded.height_px) == (SIZE[1], SIZE[0])


def test_a_scanned_tiff_is_not_a_raw_file() -> None:
    from PIL import Image, TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x010F] = "EPSON"
    content = encode(Image.new("RGB", (40, 30), WANTED), "TIFF", tiffinfo=tags, compression="jpeg")
    decoded = read_image(content)
    assert (decoded.width_px, decoded.height_px) == (40, 30) and decoded.metadata.file_type == "tiff"


@pytest.mark.parametrize("name", ["m.jp2", "n.j2k"])
def test_jpeg_2000_is_read(name: str) -> None:
    decoded = read_image(OTHER_FILES[name]())
    assert is_near(decoded.image, WANTED) and decoded.metadata.file_type == "jp2"


@pytest.mark.parametrize("name", ["o.gif", "p.webp", "q.png", "r.avif"])
def test_frames_are_spread_over_the_animation(name: str) -> None:
    decoded = read_image(OTHER_FILES[name](), max_frames=3)
    assert len(decoded.later) == 2
    assert is_near(decoded.image, WANTED) and is_near(decoded.later[1], OTHER)
    assert is_near(open_image(OTHER_FILES[name]()), WANTED)


def test_tiff_pages_are_not_frames() -> None:
    assert read_image(animation("TIFF", [WANTED, OTHER, OTHER]), max_frames=3).later == ()


def test_a_damaged_later_frame_does_not_lose_the_animation() -> None:
    noise = [tuple(int(value) for value in colour) for colour in np.random.default_rng(0).integers(0, 256, (9, 3))]
    whole = animation("GIF", noise)
    assert len(read_image(whole, max_frames=3).later) == 2
    assert is_near(read_image(whole[: len(whole) // 2], max_frames=3).image, noise[0])


def test_an_animation_is_found_by_the_mean_of_its_frames(encoders: OnnxEncoders, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    content = animation("PNG", [WANTED] * 3 + [OTHER] * 6)
    (folder / "all.png").write_bytes(content)
    decoded = read_image(content, max_frames=3)
    for number, frame in enumerate((decoded.image, *decoded.later)):
        frame.save(folder / f"frame{number}.png")
    update_index(str(folder), encoders, tmp_path / "index")
    embeds = ImageIndex.open(tmp_path / "index").image_embeds
    mean = embeds[1:].sum(axis=0) / np.linalg.norm(embeds[1:].sum(axis=0))
    assert np.abs(embeds[0] - mean).max() < 1e-5 < np.abs(embeds[0] - embeds[1]).max()


def test_all_files_are_indexed_or_named(
    encoders: OnnxEncoders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    write_camera_files(folder)
    report = update_index(str(folder), encoders, tmp_path / "index")
    index = ImageIndex.open(tmp_path / "index")
    assert {path.name for path in index.paths} == {*RAW_FILES, *OTHER_FILES} and len(index) == 21
    reasons = {Path(problem.path).name: problem.reason for problem in report.skipped}
    assert reasons.keys() == UNREADABLE_FILES.keys()
    for name, (_, words) in UNREADABLE_FILES.items():
        assert words in reasons[name]
    assert all(f"{kind} 1" in "".join(report.notes) for kind in SKIPPED_FILES.values())


def test_a_raw_file_beside_its_jpeg_is_skipped(encoders: OnnxEncoders, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "other").mkdir(parents=True)
    (folder / "IMG_1.CR2").write_bytes(cr2())
    (folder / "img_1.jpg").write_bytes(encode(open_image(cr2()), "JPEG"))
    (folder / "other" / "IMG_1.CR2").write_bytes(cr2())
    report = update_index(str(folder), encoders, tmp_path / "index")
    assert report.added == 2 and report.notes == ["passed over: RAW beside its JPEG 1"]


@pytest.mark.parametrize(
    "content", [b"II*\0", b"MM\0*\0\0\0\x08", b"FUJIFILMCCD-RAW", b"\0\0\0\x18ftypcrx ", b"IIRO\xff\xd8\xff"]
)
def test_a_file_with_only_a_raw_header_is_refused(content: bytes) -> None:
    with pytest.raises(MiniClipError):
        open_image(content)
