"""Videos in an index: their frames come and go together, whatever happens to the file or to the update."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from miniclip.data.images import ImageSource, open_image
from miniclip.data.moments import file_of, second_of
from miniclip.errors import MiniClipError
from miniclip.index import embed_file, image_texts, scan, scan_result, store
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.location import bring_up_to_date, is_up_to_date
from miniclip.index.ray_indexer import embed_block, result_schema
from miniclip.index.store import Writer
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import counts, encoders
from tests.support.videos import BLUE, GREEN, RED, cut_off, write_sound, write_video

pytest.importorskip("av", reason="the extra video is not installed")
__all__ = ["encoders"]  # a fixture
BOTH = {"a.mp4": [0, 3, 6], "b's.webm": [0, 2], "c.png": [None]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photograph, a video of three scenes and one of two."""
    place = tmp_path / "clips"
    write_video(place / "a.mp4")
    write_video(place / "b's.webm", [(BLUE, 2), (RED, 2)])
    Image.new("RGB", (40, 30), GREEN).save(place / "c.png")
    return place


def rows(out: Path) -> dict[str, list[float | None]]:
    """Each file's name with the seconds of its rows."""
    index = ImageIndex.open(out)
    found: dict[str, list[float | None]] = {}
    for row in range(len(index)):
        path = index.paths.text(row)
        found.setdefault(index.paths.name(row), []).append(second_of(path))
        assert os.path.exists(file_of(path))
    return found


def test_each_scene_is_a_row_and_an_update_keeps_them(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    report = update_index(str(folder), encoders, out)
    assert counts(report) == (6, 0, 0, 0) and "frames of 2 videos among them" in str(report)
    assert rows(out) == BOTH
    index = ImageIndex.open(out)
    assert len(np.unique(index.sha256, axis=0)) == 6
    assert [str(index.facts.file_type.counts[name]) for name in ("video", "png")] == ["5", "1"]
    assert index.facts.width_px[:5].tolist() == [96] * 5
    open_image(index.source(1)).save(tmp_path / "frame.png")
    assert np.allclose(index.embeds([1]), encoders.encode_images([tmp_path / "frame.png"])[1], atol=1e-4)
    assert counts(update_index(str(folder), encoders, out)) == (0, 6, 0, 0)


def test_the_index_of_a_folder_with_videos_is_current(encoders: OnnxEncoders, folder: Path) -> None:
    out = bring_up_to_date(str(folder), encoders)
    fingerprint = encoders.bundle.fingerprint
    assert is_up_to_date(str(folder), out, fingerprint)
    os.utime(folder / "a.mp4", (1, 1))
    assert not is_up_to_date(str(folder), out, fingerprint)
    bring_up_to_date(str(folder), encoders)
    (folder / "a.mp4").unlink()
    assert not is_up_to_date(str(folder), out, fingerprint)


def test_a_changed_video_replaces_all_its_frames(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    write_video(folder / "a.mp4", [(GREEN, 2), (BLUE, 2)])
    assert counts(update_index(str(folder), encoders, out)) == (2, 3, 0, 0)
    assert rows(out) == BOTH | {"a.mp4": [0, 2]}


def test_a_video_that_is_gone_takes_all_its_frames_along(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    (folder / "a.mp4").unlink()
    assert counts(update_index(str(folder), encoders, out)) == (0, 3, 3, 0)
    assert rows(out) == {name: BOTH[name] for name in ("b's.webm", "c.png")}


def test_a_renamed_or_copied_video_is_known_by_its_content(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    before = ImageIndex.open(out).embeds([0, 1, 2])

    def refuse(path: str) -> None:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(embed_file, "open_video", refuse)
    (folder / "a.mp4").rename(folder / "z.mp4")
    shutil.copy(folder / "b's.webm", folder / "copy.webm")
    report = update_index(str(folder), encoders, out)
    assert (report.added, report.reused, report.removed) == (5, 5, 3)
    assert rows(out) == {"b's.webm": [0, 2], "c.png": [None], "copy.webm": [0, 2], "z.mp4": [0, 3, 6]}
    index = ImageIndex.open(out)
    assert np.array_equal(index.embeds([5, 6, 7]), before)
    assert index.content.tolist() == [0, 1, 2, 0, 1, 5, 6, 7]


def test_an_image_with_the_content_of_a_video_does_not_take_its_frame(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    shutil.copy(folder / "a.mp4", folder / "a.jpg")
    assert [problem.path for problem in update_index(str(folder), encoders, out).skipped] == [str(folder / "a.jpg")]
    assert rows(out) == BOTH


def test_an_update_that_ends_between_its_commits_is_finished_by_the_next(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new frames are there, the old ones are not removed yet."""
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    write_video(folder / "a.mp4", [(GREEN, 2), (BLUE, 2)])

    class KilledError(Exception):
        pass

    def kill(writer: Writer, paths: list[str]) -> None:
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Writer, "remove", kill)
        update_index(str(folder), encoders, out)
    assert rows(out)["a.mp4"] == [0, 2, 3, 6]
    update_index(str(folder), encoders, out)
    assert rows(out) == BOTH | {"a.mp4": [0, 2]}


def test_a_frame_of_another_state_means_that_an_update_was_interrupted(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    table = lancedb.connect(str(out)).open_table("pictures")
    table.update(where="path LIKE '%a.mp4#t=6'", values={"mtime_ns": 1})
    assert counts(update_index(str(folder), encoders, out)) == (3, 3, 0, 0)
    assert len(np.unique(ImageIndex.open(out).states[:3], axis=0)) == 1


def test_the_frames_of_a_video_are_removed_by_one_commit(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    commits: list[set[str]] = []
    delete = store._delete_batch

    def watch(table: Any, paths: list[str]) -> None:
        commits.append({file_of(path) for path in paths})
        delete(table, paths)

    monkeypatch.setattr(store, "_delete_batch", watch)
    monkeypatch.setattr(store, "DELETE_ROWS", 1)
    (folder / "a.mp4").unlink()
    (folder / "b's.webm").unlink()
    update_index(str(folder), encoders, out)
    assert commits == [{str(folder / "a.mp4")}, {str(folder / "b's.webm")}]
    assert rows(out) == {"c.png": [None]}


def test_a_broken_video_keeps_its_first_frames_and_is_named(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(folder / "b's.webm", 0.6)
    cut_off(folder / "a.mp4", 0.5)
    write_sound(folder / "sound.mp4")
    (folder / "text.mov").write_text("no video")
    out = tmp_path / "index"
    report = update_index(str(folder), encoders, out)
    assert (report.added, report.remarks, report.videos) == (2, 1, 1)
    assert {os.path.basename(problem.path) for problem in report.skipped} == {"a.mp4", "sound.mp4", "text.mov"}
    assert "cut off after 0:0" in (said := capsys.readouterr()).out + said.err
    assert counts(update_index(str(folder), encoders, out)) == (0, 2, 0, 3)  # not tried again
    write_video(folder / "a.mp4")
    assert update_index(str(folder), encoders, out).added == 3


def test_a_video_that_becomes_unreadable_loses_its_frames(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    (folder / "a.mp4").write_text("no video")
    update_index(str(folder), encoders, out)
    assert rows(out) == {name: BOTH[name] for name in ("b's.webm", "c.png")}


def test_without_the_extra_videos_are_passed_over_counted_and_named(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (scan, scan_result):
        monkeypatch.setattr(module, "can_read_video", lambda: False)
    report = update_index(str(folder), encoders, tmp_path / "index")
    assert counts(report) == (1, 0, 0, 0)
    passed_over, hint = report.notes
    assert passed_over == "passed over: video (.mp4) 1, video (.webm) 1"
    assert hint.startswith("2 videos can be searched with: ") and "[video]" in hint
    (folder / "c.png").unlink()
    with pytest.raises(MiniClipError, match=r"no images.*2 videos can be searched with"):
        update_index(str(folder), encoders, tmp_path / "other")


def test_an_update_without_the_extra_keeps_the_frames_of_videos_that_still_exist(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    update_index(str(folder), encoders, out)
    for module in (scan, scan_result):
        monkeypatch.setattr(module, "can_read_video", lambda: False)
    assert is_up_to_date(str(folder), out, encoders.bundle.fingerprint)
    (folder / "b's.webm").unlink()
    assert counts(update_index(str(folder), encoders, out)) == (0, 4, 2, 0)
    assert rows(out) == {name: BOTH[name] for name in ("a.mp4", "c.png")}


def test_a_file_that_is_named_like_a_moment_is_refused(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    """A caption file may name any file. This one would be taken for a frame of another."""
    shutil.copy(folder / "c.png", folder / "a.mp4#t=3")
    (folder / "captions.csv").write_text("image,caption\na.mp4#t=3,a green field\na.mp4,a party\n")
    report = update_index(str(folder), encoders, tmp_path / "index")
    assert [problem.reason for problem in report.skipped] == ["its name is that of a moment in a video; rename it"]
    assert rows(tmp_path / "index") == BOTH
    assert list(ImageIndex.open(tmp_path / "index").captions)[:4] == [["a party"]] * 3 + [[]]


def test_the_text_of_every_frame_is_read(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ColourReader:
        def read(self, source: ImageSource) -> str:
            image = open_image(source)
            return "Exit" if image.getpixel((image.width // 2, image.height // 2))[0] > 150 else ""

    monkeypatch.setattr(image_texts, "can_read_text", lambda: True)
    monkeypatch.setattr(image_texts, "_reader", ColourReader)
    assert update_index(str(folder), encoders, tmp_path / "index").with_text == 2
    index = ImageIndex.open(tmp_path / "index")
    assert [index.text(row) for row in range(6)] == ["Exit", "", "", "", "Exit", ""]


def test_a_machine_of_a_cluster_gives_the_same_rows(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    update_index(str(folder), encoders, tmp_path / "index")
    index = ImageIndex.open(tmp_path / "index")
    (folder / "text.mov").write_text("no video")
    files = [
        {"path": str(path), "bytes": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns, "captions": []}
        for path in sorted(folder.iterdir())
    ]
    found = embed_block(pa.Table.from_pylist(files), encoders, result_schema(encoders.dim)).to_pylist()
    good = {row["path"]: row for row in found if row["reason"] is None}
    assert list(good) == [index.paths.text(row) for row in range(len(index))]
    assert [row["sha256"] for row in good.values()] == [sha256.tobytes() for sha256 in index.sha256]
    assert [row["path"] for row in found if row["reason"]] == [str(folder / "text.mov")]


def test_a_stop_between_videos_keeps_whole_videos(
    encoders: OnnxEncoders, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from miniclip.index import indexer

    out, write = tmp_path / "index", indexer.write_here

    def stop_at_first(plan: Any, found: Any, encoders: Any, writer: Any, stop: threading.Event) -> tuple[int, int]:
        return write(plan, found, encoders, writer, stop, progress=lambda done, total: stop.set())

    with pytest.raises(KeyboardInterrupt):
        update_index(str(folder), encoders, out, write=stop_at_first)
    assert rows(out) == {"a.mp4": BOTH["a.mp4"]}
    assert counts(update_index(str(folder), encoders, out)) == (3, 3, 0, 0)


def test_the_video_of_a_live_photo_is_passed_over(encoders: OnnxEncoders, folder: Path, tmp_path: Path) -> None:
    """Its image shows the same. Beside any other image, a video is one of its own."""
    write_video(folder / "IMG_1.MOV", [(RED, 1)])
    write_video(folder / "c.mov", [(RED, 1)])
    Image.new("RGB", (40, 30), GREEN).save(folder / "img_1.heic", "HEIF")
    report = update_index(str(folder), encoders, tmp_path / "index")
    assert report.notes == ["passed over: video of a Live Photo 1"]
    assert {"c.mov", "img_1.heic"} <= rows(tmp_path / "index").keys()
