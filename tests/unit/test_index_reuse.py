"""An update reuses embeddings, keeps the rows of folders that cannot be listed, and drops damaged images."""

import hashlib
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from PIL import Image

from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.camera_files import jpeg_xl
from tests.support.indexing import counts, embeds_by_name, encoders, six_images

__all__ = ["encoders", "six_images"]  # fixtures


def test_renamed_copied_and_touched_images_keep_their_embedding(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    before = embeds_by_name(out)
    first, second, third, *_ = sorted(images.iterdir())
    first.rename(images / "renamed.jpg")
    shutil.copy(second, images / "copied.jpg")
    os.utime(third, ns=(1, 1))
    report = update_index(str(images), encoders, out)
    assert (report.added, report.reused, report.kept, report.removed) == (3, 3, 4, 1)
    after = embeds_by_name(out)
    assert after["renamed.jpg"] == before[first.name] and first.name not in after
    assert after["copied.jpg"] == after[second.name] == before[second.name]
    assert after[third.name] == before[third.name]
    assert counts(update_index(str(images), encoders, out)) == (0, 7, 0, 0)


def test_a_row_has_hash_size_dimensions_and_date_of_its_file(encoders: OnnxEncoders, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    exif.get_ifd(0x8769)[0x9003] = "2019:07:14 18:30:05"
    Image.new("RGB", (1000, 400), (200, 30, 30)).save(folder / "a.jpg", exif=exif)
    Image.new("RGB", (70, 50)).save(folder / "b.png")
    update_index(str(folder), encoders, tmp_path / "index")
    table = lancedb.connect(str(tmp_path / "index")).open_table("pictures").to_arrow().sort_by("path").to_pylist()
    dated, plain = table
    assert dated["path"] == str(folder / "a.jpg")
    assert dated["sha256"] == hashlib.sha256((folder / "a.jpg").read_bytes()).digest()
    status = (folder / "a.jpg").stat()
    assert (dated["bytes"], dated["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    assert (dated["width_px"], dated["height_px"]) == (400, 1000)
    assert dated["taken"] == datetime(2019, 7, 14, 18, 30, 5) and plain["taken"] is None
    assert (plain["width_px"], plain["height_px"]) == (70, 50)


def test_an_unreadable_image_is_retried_only_after_a_change(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "index"
    (images / "text.jpg").write_text("no image")
    update_index(str(images), encoders, out)
    capsys.readouterr()
    report = update_index(str(images), encoders, out)
    assert counts(report) == (0, 6, 0, 1) and report.skipped[0].path.endswith("text.jpg")
    assert "skipping" not in capsys.readouterr().out  # it was not opened again
    os.utime(images / "text.jpg", ns=(1, 1))
    assert counts(update_index(str(images), encoders, out)) == (0, 6, 0, 1)
    assert "skipping text.jpg" in capsys.readouterr().out
    (images / "text.jpg").unlink()
    assert counts(update_index(str(images), encoders, out)) == (0, 6, 0, 0)
    assert ImageIndex.open(out).skipped == []


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(107, "not connected")])
def test_an_image_that_could_not_be_opened_is_retried_without_a_change(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    out, victim = tmp_path / "index", sorted(images.iterdir())[0]

    def refuse(path: str, mode: str) -> Any:  # root may read everything, so permissions are not enough
        if str(path) == str(victim):
            raise error
        return open(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr("miniclip.index.embed_file.open", refuse, raising=False)
        assert counts(update_index(str(images), encoders, out)) == (5, 0, 0, 1)
        assert counts(update_index(str(images), encoders, out)) == (0, 5, 0, 1)
    assert counts(update_index(str(images), encoders, out)) == (1, 5, 0, 0)
    assert ImageIndex.open(out).skipped == []


def test_heic_is_retried_because_the_reader_may_be_installed_now(
    encoders: OnnxEncoders,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("miniclip.data.images.FORMATS", ["JPEG", "PNG"])
    (images / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    for kept in (0, 6):
        assert counts(update_index(str(images), encoders, tmp_path / "index")) == (6 - kept, kept, 0, 1)
        assert "skipping phone.heic: HEIC images need one more package: pip install" in capsys.readouterr().out


def test_a_changed_file_whose_reader_is_missing_keeps_its_row_until_it_can_be_read(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, drawing = tmp_path / "index", images / "drawing.jxl"
    drawing.write_bytes(jpeg_xl(np.full((40, 60, 3), (220, 40, 40), np.uint8)))
    update_index(str(images), encoders, out)
    before = embeds_by_name(out)
    drawing.write_bytes(jpeg_xl(np.full((50, 60, 3), (40, 80, 220), np.uint8)))
    with monkeypatch.context() as patch:
        patch.setattr("miniclip.data.images.FORMATS", ["JPEG", "PNG"])
        assert counts(update_index(str(images), encoders, out)) == (0, 6, 0, 1)
        assert embeds_by_name(out)["drawing.jxl"] == before["drawing.jxl"]
    assert counts(update_index(str(images), encoders, out)) == (1, 6, 0, 0)
    assert embeds_by_name(out)["drawing.jxl"] != before["drawing.jxl"]


def test_an_image_that_became_damaged_leaves_the_index(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    victim = sorted(images.iterdir())[0]
    victim.write_text("no image any more")
    assert counts(update_index(str(images), encoders, out)) == (0, 5, 0, 1)
    assert victim.name not in embeds_by_name(out)


def test_images_of_a_folder_that_became_unreadable_stay_in_the_index(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, inner = tmp_path / "index", images / "inner"
    inner.mkdir()
    shutil.copy(next(images.glob("*.png")), inner / "kept.png")
    update_index(str(images), encoders, out)
    scandir = os.scandir

    def refuse(path: str) -> Any:  # root may read everything, so permissions are not enough
        if str(path) == str(inner):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = update_index(str(images), encoders, out)
    assert counts(report) == (0, 7, 0, 1)
    assert report.skipped[0].reason == "folder cannot be read (Permission denied)"
    assert "kept.png" in embeds_by_name(out)


def test_indexing_ends_in_spite_of_circular_links(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    (images / "below").mkdir()
    (images / "below/loop").symlink_to(images)
    (images / "self").symlink_to(images / "self")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(next(images.glob("*.png")), elsewhere / "linked.png")
    (images / "link").symlink_to(elsewhere)
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (7, 0, 0, 1)  # "self" has no target


def test_a_folder_with_captions_for_some_images_is_indexed_completely(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    first = sorted(path.name for path in images.iterdir())[0]
    (images / "metadata.csv").write_text(f"file_name,text\n{first},the only caption\nlost.jpg,no image\n")
    report = update_index(str(images), encoders, tmp_path / "index")
    assert counts(report) == (6, 0, 0, 1) and "lost.jpg" in report.skipped[0].path
    assert list(ImageIndex.open(tmp_path / "index").captions) == [["the only caption"], *[[]] * 5]
