"""An index follows its images: unchanged rows are kept, changed images are embedded again, a kill loses little."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.settings import Settings
from miniclip.index.store import open_writer
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import counts, embeds_by_name, encoders, six_images

__all__ = ["encoders", "six_images"]  # fixtures


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
    before = embeds_by_name(out)
    shutil.copy(second, first)  # changed
    second.unlink()  # gone
    shutil.copy(third, images / "new.png")
    assert counts(update_index(str(images), encoders, out)) == (2, 4, 1, 0)
    after = embeds_by_name(out)
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
    assert set(names) < set(embeds_by_name(out))
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
    before = embeds_by_name(out)
    with pytest.raises(MiniClipError, match=r"made by another bundle; choose another --out, or delete it"):
        update_index(str(images), OnnxEncoders(Bundle.open(other), "cpu", threads=1), out)
    with pytest.raises(MiniClipError, match=r"search with --bundle .*tiny, or index the images again"):
        ImageIndex.open(out).check_bundle("0" * 64)
    assert embeds_by_name(out) == before


def test_an_out_folder_without_an_index_is_not_changed(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear diary")
    (tmp_path / "file").write_text("mine too")
    for out, words in (("mine", "is not an index"), ("file", "is a file"), ("file/below", "choose another --out")):
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
