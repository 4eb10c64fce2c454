"""Faults around an index: no lock, missing drives, odd clocks, kills and a second writer.

No fault loses data, and each one is reported in one line if it can be.
"""

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import miniclip.index.store
import miniclip.index.watch
import miniclip.search.approximate
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.scan_result import Problem
from miniclip.index.settings import Settings, read_settings
from miniclip.index.store import open_writer, read_problems
from miniclip.index.watch import watch
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import counts, encoders, images

__all__ = ["encoders", "images"]  # fixtures


def names(index: Path) -> list[str]:
    return [path.name for path in ImageIndex.open(index).paths]


def test_an_empty_error_report_is_not_written_again(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    """Otherwise a reader that opens the index while its table is away would get a message about damage."""
    update_index(str(images), encoders, tmp_path / "index")
    mark = tmp_path / "index/problems.lance/mark"
    mark.touch()
    update_index(str(images), encoders, tmp_path / "index")
    assert mark.exists()


def test_an_image_with_a_date_in_another_century_is_indexed(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    moment_ns = 10**19  # in 2286
    os.utime(images / "b.png", ns=(moment_ns, moment_ns))
    if os.stat(images / "b.png").st_mtime_ns != moment_ns:
        pytest.skip("this file system has no such times")
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (3, 0, 0, 0)
    assert counts(update_index(str(images), encoders, tmp_path / "index")) == (0, 3, 0, 0)


# missing drives


def test_images_behind_a_link_to_an_unmounted_drive_are_kept(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "drive").mkdir()
    (images / "c.png").rename(tmp_path / "drive/c.png")
    (images / "holiday").symlink_to(tmp_path / "drive")
    out = tmp_path / "index"
    assert counts(update_index(str(images), encoders, out)) == (3, 0, 0, 0)
    (tmp_path / "drive").rename(tmp_path / "away")
    report = update_index(str(images), encoders, out)
    assert counts(report) == (0, 3, 0, 1)
    assert report.skipped[0].path.endswith("/holiday") and report.skipped[0].reason == "a link that leads nowhere"
    (tmp_path / "away").rename(tmp_path / "drive")
    assert counts(update_index(str(images), encoders, out)) == (0, 3, 0, 0)
    assert read_problems(out) == []
    (images / "holiday").unlink()
    assert counts(update_index(str(images), encoders, out)) == (0, 2, 1, 0)


def test_a_link_named_like_an_image_keeps_its_row_while_its_drive_is_unmounted(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "drive").mkdir()
    (images / "c.png").rename(tmp_path / "drive/c.png")
    (images / "c.png").symlink_to(tmp_path / "drive/c.png")
    out = tmp_path / "index"
    assert counts(update_index(str(images), encoders, out)) == (3, 0, 0, 0)
    (tmp_path / "drive").rename(tmp_path / "away")
    report = update_index(str(images), encoders, out)
    assert counts(report) == (0, 3, 0, 1) and report.skipped[0].reason == "a link that leads nowhere"
    assert names(out) == ["a.png", "b.png", "c.png"]
    (tmp_path / "away").rename(tmp_path / "drive")
    assert counts(update_index(str(images), encoders, out)) == (0, 3, 0, 0)
    (images / "c.png").unlink()
    assert counts(update_index(str(images), encoders, out)) == (0, 2, 1, 0)


def test_an_image_whose_status_cannot_be_read_is_kept(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    (images / "b.png").rename(tmp_path / "b.png")
    (images / "b.png").symlink_to("b.png")  # to itself: an error, but not "no such file"
    assert counts(update_index(str(images), encoders, out)) == (0, 3, 0, 1)
    assert names(out) == ["a.png", "b.png", "c.png"]
    (tmp_path / "b.png").replace(images / "b.png")
    assert counts(update_index(str(images), encoders, out)) == (0, 3, 0, 0)
    assert read_problems(out) == []
    (images / "b.png").unlink()
    assert counts(update_index(str(images), encoders, out)) == (0, 2, 1, 0)


# another source


def test_images_of_another_folder_do_not_replace_existing_ones(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    (images / "sub").mkdir()
    (images / "c.png").rename(images / "sub/c.png")
    (images / "bad.png").write_text("no image")
    out = tmp_path / "index"
    problems = update_index(str(images), encoders, out).skipped
    for _ in range(2):  # the refused source is not stored
        with pytest.raises(MiniClipError, match=f"holds the images of {images}, and they are still there; index"):
            update_index(str(images / "sub"), encoders, out)
    assert names(out) == ["a.png", "b.png", "c.png"] and read_settings(out).images == str(images)
    assert read_problems(out) == problems != []


def test_an_index_follows_a_moved_or_extended_folder(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    monkeypatch.chdir(tmp_path)
    update_index("pictures", encoders, out)
    assert read_settings(out).images == str(images)  # valid from any current folder
    images.rename(tmp_path / "moved")
    report = update_index("moved", encoders, out)
    assert (counts(report), report.reused) == ((3, 0, 3, 0), 3)
    (tmp_path / "wider").mkdir()
    update_index("moved", encoders, out)
    (tmp_path / "moved").rename(tmp_path / "wider/moved")
    update_index("wider/moved", encoders, out)
    assert counts(update_index("wider", encoders, out)) == (0, 3, 0, 0)
    assert read_settings(out).images == str(tmp_path / "wider")


# kills and writers


def test_kill_before_the_first_index_json_does_not_lock_the_user_out(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    out.mkdir()
    (out / "writer.lock").write_text("process 1")
    (out / "index.json.partial").write_text('{"form')
    assert counts(update_index(str(images), encoders, out)) == (3, 0, 0, 0)
    assert not (out / "index.json.partial").exists()


def test_an_index_made_by_another_bundle_before_the_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lock = tmp_path / "index", fcntl.flock

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        with open_writer(out, Settings("1" * 64, tmp_path, "x"), 32):
            pass
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with (
        pytest.raises(MiniClipError, match="made by another bundle"),
        open_writer(out, Settings("0" * 64, tmp_path, "x"), 32),
    ):
        pass
    assert json.loads((out / "index.json").read_text())["fingerprint"] == "1" * 64


def test_a_kill_between_the_commits_of_a_damaged_image_leaves_no_row(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    out, bad = tmp_path / "index", images.resolve() / "b.png"
    update_index(str(images), encoders, out)
    bad.write_bytes(b"no image")
    settings = Settings(encoders.bundle.fingerprint, encoders.bundle.folder, str(images))
    with open_writer(out, settings, encoders.dim) as writer:  # the first of the two commits
        writer.put_problems([Problem(str(bad), "not an image", bad.stat().st_size, bad.stat().st_mtime_ns)])
    assert "b.png" in names(out)
    assert counts(update_index(str(images), encoders, out)) == (0, 2, 1, 1)
    assert names(out) == ["a.png", "c.png"]
    assert counts(update_index(str(images), encoders, out)) == (0, 2, 0, 1)


def test_a_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    with (
        pytest.raises(MiniClipError, match=r"cannot lock .*: No locks available; its file system has no locks"),
        open_writer(tmp_path / "index", Settings("0" * 64, tmp_path, "x"), 32),
    ):
        pass


def test_watching_reports_each_failure_once(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aside").mkdir()
    reported: list[str] = []

    def away() -> None:
        for path in images.iterdir():
            path.rename(tmp_path / "aside" / path.name)

    def back() -> None:
        for path in (tmp_path / "aside").iterdir():
            path.rename(images / path.name)

    def end() -> None:
        raise KeyboardInterrupt

    between = iter([lambda: None, away, *[lambda: None] * 3, back, lambda: None, away, lambda: None, end])
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: next(between)())
    monkeypatch.setattr(miniclip.index.watch, "time", clock)
    with pytest.raises(KeyboardInterrupt):
        watch(str(images), encoders, tmp_path / "index", reported.append)
    assert [line.split(":")[0] for line in reported[2:]] == ["not updated", "not updated"], reported
