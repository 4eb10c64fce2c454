"""An index follows its pictures: what did not change is kept, what did is embedded again, a kill loses little."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from miniclip.bundle import Bundle
from miniclip.encoders import OnnxEncoders
from miniclip.errors import MiniClipError
from miniclip.index import IndexReport, PictureIndex, printable, update_index

REPOSITORY = Path(__file__).parents[2]
# 256 pictures a commit, and no 5 seconds of waiting for the first
INDEX_EAGERLY = """
import sys, miniclip.index
from miniclip.bundle import Bundle
from miniclip.encoders import OnnxEncoders
miniclip.index.COMMIT_EVERY_S = 0.0
bundle, pictures, out = sys.argv[1:]
encoders = OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)
miniclip.index.update_index(pictures, encoders, miniclip.index.Path(out))
"""


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


@pytest.fixture
def pictures(picture_folder: Path, tmp_path: Path) -> Path:
    """Six of the pictures, without captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(picture_folder.glob("*-*"))[:6]:
        shutil.copy(path, folder)
    return folder


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.kept, report.removed, len(report.skipped)


def contents(index: Path) -> dict[str, list[float]]:
    opened = PictureIndex.open(index)
    return {path.name: row.tolist() for path, row in zip(opened.paths, opened.image_embeds, strict=True)}


def test_index_holds_each_picture_with_its_embedding(encoders: OnnxEncoders, pictures: Path, tmp_path: Path) -> None:
    report = update_index(str(pictures), encoders, tmp_path / "index")
    assert counts(report) == (6, 0, 0, 0)
    assert str(report) == "6 pictures embedded, 0 unchanged, 0 removed"
    index = PictureIndex.open(tmp_path / "index")
    assert index.paths == sorted(pictures.resolve().iterdir())
    assert index.captions == [[]] * 6
    assert np.abs(index.image_embeds - encoders.encode_images(index.paths)[1]).max() < 1e-5
    index.check_bundle(encoders.bundle.fingerprint)


def test_update_embeds_only_what_is_new_or_changed(encoders: OnnxEncoders, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(pictures), encoders, out)
    assert counts(update_index(str(pictures), encoders, out)) == (0, 6, 0, 0)
    first, second, third, *_ = sorted(pictures.iterdir())
    before = contents(out)
    shutil.copy(second, first)  # changed
    second.unlink()  # gone
    shutil.copy(third, pictures / "new.png")
    assert counts(update_index(str(pictures), encoders, out)) == (2, 4, 1, 0)
    after = contents(out)
    assert after[first.name] == pytest.approx(before[second.name], abs=1e-5)
    assert second.name not in after and after["new.png"] == pytest.approx(before[third.name], abs=1e-5)
    assert after[third.name] == before[third.name]


def test_changed_caption_is_noticed(encoders: OnnxEncoders, pictures: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in pictures.iterdir())
    lines = [f"{name},caption of {name}" for name in names]
    (pictures / "metadata.csv").write_text("\n".join(["file_name,text", *lines]))
    assert counts(update_index(str(pictures), encoders, tmp_path / "index")) == (6, 0, 0, 0)
    lines[0] = f"{names[0]},another"
    (pictures / "metadata.csv").write_text("\n".join(["file_name,text", *lines]))
    assert counts(update_index(str(pictures), encoders, tmp_path / "index")) == (1, 5, 0, 0)
    assert PictureIndex.open(tmp_path / "index").captions[0] == ["another"]


def test_unreadable_pictures_are_skipped_with_reason_and_tried_again(
    encoders: OnnxEncoders, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "text.jpg").write_text("no picture")
    report = update_index(str(pictures), encoders, tmp_path / "index")
    assert counts(report) == (6, 0, 0, 1)
    assert "skipping text.jpg: not a picture" in capsys.readouterr().out
    assert "not a picture" in PictureIndex.open(tmp_path / "index").skipped[0].reason
    shutil.copy(next(pictures.glob("*.png")), pictures / "text.jpg")
    assert counts(update_index(str(pictures), encoders, tmp_path / "index")) == (1, 6, 0, 0)
    assert PictureIndex.open(tmp_path / "index").skipped == []


def test_names_of_every_kind_work(encoders: OnnxEncoders, pictures: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "index", next(pictures.glob("*.png"))
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
        shutil.copy(first, pictures / name)
    assert counts(update_index(str(pictures), encoders, out)) == (13, 0, 0, 0)
    assert set(names) < set(contents(out))
    for name in names:
        (pictures / name).unlink()
    assert counts(update_index(str(pictures), encoders, out)) == (0, 6, 7, 0)


def test_name_that_is_not_utf8_is_skipped_with_its_reason(
    encoders: OnnxEncoders, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        shutil.copy(next(pictures.glob("*.png")), os.fsencode(pictures) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes no such names")
    report = update_index(str(pictures), encoders, tmp_path / "index")
    assert counts(report) == (6, 0, 0, 1)
    assert "skipping caf\\xe9.png: its path is not UTF-8; rename it" in capsys.readouterr().out
    assert PictureIndex.open(tmp_path / "index").skipped[0].name == "caf\\xe9.png"


def test_printable_names_are_one_line() -> None:
    assert printable("größe 犬.png") == "größe 犬.png"
    assert printable("a\nb\x1b[31m.png") == "a\\nb\\x1b[31m.png"
    assert printable("\udce9.png") == "\\xe9.png"


# what is refused


def test_index_of_another_bundle_is_refused_with_the_way_to_mend(
    encoders: OnnxEncoders, tiny_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(pictures), encoders, out)
    other = Path(shutil.copytree(tiny_bundle, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": "0" * 64}))
    before = contents(out)
    with pytest.raises(MiniClipError, match=r"made by another bundle; choose another --out, or delete it"):
        update_index(str(pictures), OnnxEncoders(Bundle.open(other), "cpu", threads=1), out)
    with pytest.raises(MiniClipError, match=r"search with --bundle .*tiny, or index the pictures again"):
        PictureIndex.open(out).check_bundle("0" * 64)
    assert contents(out) == before


def test_out_that_is_no_index_is_not_touched(encoders: OnnxEncoders, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear diary")
    (tmp_path / "file").write_text("mine too")
    for out, words in (("mine", "is no index"), ("file", "is a file"), ("file/below", "choose another --out")):
        with pytest.raises(MiniClipError, match=words):
            update_index(str(pictures), encoders, tmp_path / out)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["diary.txt"]
    assert (tmp_path / "file").read_text() == "mine too"


def test_folder_without_one_readable_picture_is_refused(encoders: OnnxEncoders, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "pictures" / name).write_text("no picture")
    with pytest.raises(MiniClipError, match=r"no picture in .* could be read; the first: .*a\.jpg: not a picture"):
        update_index(str(tmp_path / "pictures"), encoders, tmp_path / "index")
    with pytest.raises(MiniClipError, match="is empty; fill it with: miniclip index"):
        PictureIndex.open(tmp_path / "index")


def test_damaged_index_is_one_line(encoders: OnnxEncoders, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(pictures), encoders, out)
    settings = (out / "index.json").read_text()
    newer = json.dumps({**json.loads(settings), "format": 99})
    for content in ("", "[]", "{", "null", "{}", '{"format": 1}', '{"format": "x"}', newer, "[" * 100_000):
        (out / "index.json").write_text(content)
        with pytest.raises(MiniClipError, match=r"damaged|newer than this MiniCLIP") as refused:
            PictureIndex.open(out)
        assert "\n" not in str(refused.value)
    (out / "index.json").write_text(json.dumps({**json.loads(settings), "skipped": [3]}))
    with pytest.raises(MiniClipError, match="damaged"):
        PictureIndex.open(out)
    (out / "index.json").write_text(settings)
    for file in (out / "pictures.lance/data").iterdir():
        file.write_bytes(b"")
    with pytest.raises(MiniClipError, match=r"is damaged .* delete it and index the pictures again") as refused:
        PictureIndex.open(out)
    assert "\n" not in str(refused.value)
    shutil.rmtree(out / "pictures.lance")
    with pytest.raises(MiniClipError, match="is damaged"):
        PictureIndex.open(out)
    with pytest.raises(MiniClipError, match=r"no index at .*; make one with: miniclip index"):
        PictureIndex.open(tmp_path / "none")


# a kill


@pytest.mark.skipif(not hasattr(os, "kill") or sys.platform == "win32", reason="needs SIGKILL")
def test_killed_run_is_continued_to_the_same_index(
    encoders: OnnxEncoders, tiny_bundle: Path, picture_folder: Path, tmp_path: Path
) -> None:
    pictures, out = tmp_path / "many", tmp_path / "index"
    pictures.mkdir()
    originals = sorted(picture_folder.glob("*-*"))
    for number in range(1500):
        source = originals[number % len(originals)]
        os.link(source, pictures / f"{number:04}{source.suffix}")
    command = [sys.executable, "-c", INDEX_EAGERLY, str(tiny_bundle), str(pictures), str(out)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((out / "pictures.lance/data").glob("*.lance")):
        assert process.poll() is None, "it ended before its first commit"
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks
    process.kill()
    assert process.wait() == -9, "it was done before the kill"
    report = update_index(str(pictures), encoders, out)
    assert report.added + report.kept == 1500
    assert report.kept % 256 == 0 and report.added > 0
    continued = contents(out)
    assert len(continued) == 1500
    expected = encoders.encode_images(originals)[1]
    rows = np.array([continued[name] for name in sorted(continued)])
    assert np.abs(rows - expected[np.arange(1500) % len(originals)]).max() < 1e-5
    assert counts(update_index(str(pictures), encoders, out)) == (0, 1500, 0, 0)
