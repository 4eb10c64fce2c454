"""An index follows its images: unchanged rows are kept, changed images are embedded again, a kill loses little."""

import hashlib
import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from PIL import Image

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.settings import Settings
from miniclip.index.store import open_writer
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import counts, encoders

__all__ = ["encoders"]  # fixture


@pytest.fixture
def images(image_folder: Path, tmp_path: Path) -> Path:
    """Six of the images, without captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(image_folder.glob("*-*"))[:6]:
        shutil.copy(path, folder)
    return folder


def contents(index: Path) -> dict[str, list[float]]:
    opened = ImageIndex.open(index)
    return {path.name: row.tolist() for path, row in zip(opened.paths, opened.image_embeds, strict=True)}


def test_index_holds_each_image_with_its_embedding(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    report = update_index(str(images), encoders, tmp_path / "index")
    assert counts(report) == (6, 0, 0, 0)
    assert re.fullmatch(r"6 images embedded, 0 unchanged, 0 removed, 6 without a date \(\d+ images/s\)", str(report))
    index = ImageIndex.open(tmp_path / "index")
    assert index.paths == sorted(images.resolve().iterdir())
    assert index.captions == [[]] * 6
    assert np.abs(index.image_embeds - encoders.encode_images(index.paths)[1]).max() < 1e-5
    index.check_bundle(encoders.bundle.fingerprint)


def test_an_update_embeds_only_new_and_changed_images(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    assert counts(update_index(str(images), encoders, out)) == (0, 6, 0, 0)
    first, second, third, *_ = sorted(images.iterdir())
    before = contents(out)
    shutil.copy(second, first)  # changed
    second.unlink()  # gone
    shutil.copy(third, images / "new.png")
    assert counts(update_index(str(images), encoders, out)) == (2, 4, 1, 0)
    after = contents(out)
    assert after[first.name] == pytest.approx(before[second.name], abs=1e-5)
    assert second.name not in after and after["new.png"] == pytest.approx(before[third.name], abs=1e-5)
    assert after[third.name] == before[third.name]


def test_changed_caption_is_noticed(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in images.iterdir())
    lines = [f"{name},caption of {name}" for name in names]
    (images / "metadata.csv").write_text("\n".join(["file_name,text", *lines]))
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (6, 0, 0, 0)
    lines[0] = f"{names[0]},another"
    (images / "metadata.csv").write_text("\n".join(["file_name,text", *lines]))
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (1, 5, 0, 0)
    assert ImageIndex.open(tmp_path / "index").captions[0] == ["another"]


def test_unreadable_images_are_skipped_with_reason_and_tried_again(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "text.jpg").write_text("no image")
    report = update_index(str(images), encoders, tmp_path / "index")
    assert counts(report) == (6, 0, 0, 1)
    assert "skipping text.jpg: not an image" in capsys.readouterr().out
    assert "not an image" in ImageIndex.open(tmp_path / "index").skipped[0].reason
    shutil.copy(next(images.glob("*.png")), images / "text.jpg")
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (1, 6, 0, 0)
    assert ImageIndex.open(tmp_path / "index").skipped == []


def test_names_of_every_kind_work(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "index", next(images.glob("*.png"))
    names = [
        "it's.png",
        'a "b".png',
        " two  spaces .png",
        "größe-犬-🐕.png",
        "line\nend.png",
        "per%cent;--.png",
        "b\\c.png",
    ]
    for name in names:
        shutil.copy(first, images / name)
    assert counts(update_index(str(images), encoders, out)) == (13, 0, 0, 0)
    assert set(names) < set(contents(out))
    for name in names:
        (images / name).unlink()
    assert counts(update_index(str(images), encoders, out)) == (0, 6, 7, 0)


def test_name_that_is_not_utf8_is_indexed_and_found_again(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(next(images.glob("*.png")), images / name)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (7, 0, 0, 0)
    index = ImageIndex.open(tmp_path / "index")
    (path,) = [path for path in index.paths if path.name == name]
    assert path.exists() and index.row_of(path) == list(index.paths).index(path)
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (0, 7, 0, 0)


def test_a_private_use_name_is_never_confused_with_another(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(next(images.glob("*.png")), images / "\U0010dce9.png")
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (6, 0, 0, 1)
    assert "private-use character; rename it" in capsys.readouterr().out


def test_printable_names_are_one_line() -> None:
    assert printable("größe 犬.png") == "größe 犬.png"
    assert printable("a\nb\x1b[31m.png") == "a\\nb\\x1b[31m.png"
    assert printable("\udce9.png") == "\\xe9.png"


# refusals


def test_index_of_another_bundle_is_refused_with_the_fix(
    encoders: OnnxEncoders, tiny_bundle: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    other = Path(shutil.copytree(tiny_bundle, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": "0" * 64}))
    before = contents(out)
    with pytest.raises(MiniClipError, match=r"made by another bundle; choose another --out, or delete it"):
        update_index(str(images), OnnxEncoders(Bundle.open(other), "cpu", threads=1), out)
    with pytest.raises(MiniClipError, match=r"search with --bundle .*tiny, or index the images again"):
        ImageIndex.open(out).check_bundle("0" * 64)
    assert contents(out) == before


def test_an_out_folder_without_an_index_is_not_changed(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear diary")
    (tmp_path / "file").write_text("mine too")
    for out, words in (("mine", "is no index"), ("file", "is a file"), ("file/below", "choose another --out")):
        with pytest.raises(MiniClipError, match=words):
            update_index(str(images), encoders, tmp_path / out)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["diary.txt"]
    assert (tmp_path / "file").read_text() == "mine too"


def test_folder_without_one_readable_image_is_refused(encoders: OnnxEncoders, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "pictures" / name).write_text("no image")
    with pytest.raises(MiniClipError, match=r"no image in .* could be read; the first: .*a\.jpg: not an image"):
        update_index(str(tmp_path / "pictures"), encoders, tmp_path / "index")
    with pytest.raises(MiniClipError, match="is empty; fill it with: miniclip index"):
        ImageIndex.open(tmp_path / "index")


def test_damaged_index_is_one_line(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    settings = (out / "index.json").read_text()
    newer = json.dumps({**json.loads(settings), "format": 99})
    for content in ("", "[]", "{", "null", "{}", '{"format": 2}', '{"format": "x"}', newer, "[" * 100_000):
        (out / "index.json").write_text(content)
        with pytest.raises(MiniClipError, match=r"damaged|newer than this MiniCLIP") as refused:
            ImageIndex.open(out)
        assert "\n" not in str(refused.value)
    (out / "index.json").write_text(settings)
    for file in (out / "pictures.lance/data").iterdir():
        file.write_bytes(b"")
    assert len(ImageIndex.open(out)) == 6  # from the derived files
    (out / "rows.npz").unlink()
    with pytest.raises(MiniClipError, match=r"is damaged .* delete it and index the images again") as refused:
        ImageIndex.open(out)
    assert "\n" not in str(refused.value)
    shutil.rmtree(out / "pictures.lance")
    with pytest.raises(MiniClipError, match="is empty; fill it with"):
        ImageIndex.open(out)
    with pytest.raises(MiniClipError, match=r"no index at .*; make one with: miniclip index"):
        ImageIndex.open(tmp_path / "none")


def test_index_of_the_older_format_is_refused_with_the_fix(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    settings = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps({**settings, "format": 1}))
    for use in (lambda: ImageIndex.open(out), lambda: update_index(str(images), encoders, out)):
        with pytest.raises(MiniClipError, match="older format 1; delete it and index the images again"):
            use()


# reused and kept rows


def test_renamed_copied_and_touched_images_keep_their_embedding(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    before = contents(out)
    first, second, third, *_ = sorted(images.iterdir())
    first.rename(images / "renamed.jpg")
    shutil.copy(second, images / "copied.jpg")
    os.utime(third, ns=(1, 1))
    report = update_index(str(images), encoders, out)
    assert (report.added, report.reused, report.kept, report.removed) == (3, 3, 4, 1)
    after = contents(out)
    assert after["renamed.jpg"] == before[first.name] and first.name not in after
    assert after["copied.jpg"] == after[second.name] == before[second.name]
    assert after[third.name] == before[third.name]
    assert counts(update_index(str(images), encoders, out)) == (0, 7, 0, 0)


def test_a_row_describes_its_file(encoders: OnnxEncoders, tmp_path: Path) -> None:
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


def test_an_image_that_became_damaged_leaves_the_index(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    victim = sorted(images.iterdir())[0]
    victim.write_text("no image any more")
    assert counts(update_index(str(images), encoders, out)) == (0, 5, 0, 1)
    assert victim.name not in contents(out)


def test_an_unreadable_folder_keeps_its_images(
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
    assert "kept.png" in contents(out)


def test_circular_links_end(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    (images / "below").mkdir()
    (images / "below/loop").symlink_to(images)
    (images / "self").symlink_to(images / "self")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(next(images.glob("*.png")), elsewhere / "linked.png")
    (images / "link").symlink_to(elsewhere)
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (7, 0, 0, 1)  # "self" has no target


def test_images_without_captions_beside_captioned_ones_are_indexed(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    first = sorted(path.name for path in images.iterdir())[0]
    (images / "metadata.csv").write_text(f"file_name,text\n{first},the only caption\nlost.jpg,no image\n")
    report = update_index(str(images), encoders, tmp_path / "index")
    assert counts(report) == (6, 0, 0, 1) and "lost.jpg" in report.skipped[0].path
    assert list(ImageIndex.open(tmp_path / "index").captions) == [["the only caption"], *[[]] * 5]


# one writer, many readers


def test_second_writer_is_refused_and_readers_keep_their_snapshot(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    before = ImageIndex.open(out)
    with open_writer(out, Settings(encoders.bundle.fingerprint, tmp_path, "x"), encoders.dim) as writer:
        with pytest.raises(MiniClipError, match=r"another process \(process \d+\) is writing the index .*wait for it"):
            update_index(str(images), encoders, out)
        writer.remove([str(before.paths[0])])
        assert len(ImageIndex.open(out)) == 5  # the next reader sees the commit
    assert len(before) == 6 and before.paths[0].exists()
    assert counts(update_index(str(images), encoders, out)) == (1, 5, 0, 0)
