"""What is done with files of videos: two moments are one file, and no action loses it or takes it for another."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from demo.app_state import AppState
from miniclip.cli.main import run
from miniclip.data.images import open_image
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.relocate import relocate, undo
from miniclip.index.relocation_plan import plan_relocation, plan_trash
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.best_copy import choose_best, plan_others
from miniclip.search.duplicates import find_duplicates, kinds, to_delete
from miniclip.search.searcher import Searcher
from tests.support.indexing import encoders
from tests.support.journals import own_journals
from tests.support.local_page import Page
from tests.support.videos import BLUE, GREEN, RED, write_video

pytest.importorskip("av", reason="the extra video is not installed")
__all__ = ["encoders", "own_journals"]  # fixtures
LIKE_ALL = 0.001  # a threshold from which everything is similar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A video, its copy, another video that begins alike, and its first frame as a photograph of twice the size."""
    place = tmp_path / "clips"
    write_video(place / "a.mp4", [(RED, 2), (GREEN, 2)])
    shutil.copy(place / "a.mp4", place / "b copy.mp4")
    write_video(place / "c.webm", [(RED, 2), (BLUE, 2)])
    open_image(place / "a.mp4#t=0").resize((192, 128)).save(place / "d.png")
    return place


@pytest.fixture
def index(folder: Path, encoders: OnnxEncoders, tmp_path: Path) -> ImageIndex:
    update_index(str(folder), encoders, tmp_path / "index")
    return ImageIndex.open(tmp_path / "index")


@pytest.fixture
def page(index: ImageIndex, encoders: OnnxEncoders) -> Page:
    return Page(AppState(Searcher(index, encoders), "cpu"))


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def contents(*folders: Path) -> list[bytes]:
    return sorted(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def moments(index: ImageIndex) -> list[str]:
    return [index.paths.text(row) for row in range(len(index))]


def test_all_moments_of_a_video_move_as_one_file_and_come_back(index: ImageIndex, folder: Path, tmp_path: Path) -> None:
    before, away = contents(folder), tmp_path / "away"
    plan = plan_relocation(moments(index), away, "move")
    assert [os.path.basename(step.source) for step in plan.steps] == names(folder) and plan.refused == []
    outcome = relocate(plan)
    assert (len(outcome.done), outcome.failed, names(folder)) == (4, [], [])
    assert names(away) == ["a.mp4", "b copy.mp4", "c.webm", "d.png"] and contents(away) == before
    assert len(undo(outcome.journal).done) == 4
    assert (names(away), contents(folder)) == ([], before)


def test_all_moments_of_a_video_are_copied_once(index: ImageIndex, folder: Path, tmp_path: Path) -> None:
    relocate(plan_relocation(moments(index), tmp_path / "away", "copy"))
    assert names(tmp_path / "away") == names(folder)
    assert contents(tmp_path / "away") == contents(folder)


def test_the_trash_gets_each_file_once(index: ImageIndex, folder: Path) -> None:
    plan = plan_trash(moments(index))
    assert [step.source for step in plan.steps] == [str(folder / name) for name in names(folder)]


def test_only_equal_videos_are_duplicates(index: ImageIndex, folder: Path) -> None:
    for threshold in (1.0, LIKE_ALL):
        groups = find_duplicates(index, threshold)
        assert [[index.paths.text(row) for row in rows] for rows in groups] == [
            [str(folder / "a.mp4#t=0"), str(folder / "b copy.mp4#t=0")]
        ]
        assert list(kinds(index, groups[0])) == ["first", "equal"]
        assert list(to_delete(groups, index)) == [str(folder / "b copy.mp4")]


def test_a_video_never_goes_for_a_better_photograph(index: ImageIndex, tmp_path: Path) -> None:
    """Even if a group says so: the video shows more than the photograph."""
    every = list(range(len(index)))
    plan = plan_others(choose_best([every], index, LIKE_ALL), index, str(tmp_path / "away"))
    assert [os.path.basename(step.source) for step in plan.steps] == ["b copy.mp4"]
    assert [os.path.basename(step.kept) for step in plan.steps] == ["a.mp4"]


def test_the_command_moves_the_copy_of_a_video(
    index: ImageIndex, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, away = contents(folder), tmp_path / "away"
    command = ["duplicates", "--index", str(index.folder), "--move-to", str(away), "--yes"]
    assert run(command) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1\tkeep\t{folder / 'a.mp4'}",
        f"1\tmove\t{folder / 'b copy.mp4'} -> {away / 'b copy.mp4'}",
    ]
    assert contents(folder, away) == before and names(away) == ["b copy.mp4"]


def test_a_changed_video_is_no_copy_any_more(index: ImageIndex, folder: Path) -> None:
    write_video(folder / "a.mp4", [(BLUE, 2)])
    assert choose_best(find_duplicates(index, 1.0), index, 1.0) == []


def test_the_page_takes_moments_for_one_file(page: Page, index: ImageIndex, folder: Path, tmp_path: Path) -> None:
    before, rows, away = contents(folder), list(range(len(index))), tmp_path / "away"
    name = page.act("archive", rows=rows)["archive"]
    with zipfile.ZipFile(io.BytesIO(page.get(f"archive/{name}").content)) as archive:
        assert archive.namelist() == names(folder)
        assert sorted(map(archive.read, archive.namelist())) == before
    shown = page.act("plan", action="move", rows=[0, 1], folder=str(away))
    assert "One image will be moved to" in shown["html"]
    done = page.act("run", plan=shown["plan"])
    assert names(away) == ["a.mp4"] and contents(folder, away) == before
    page.act("undo", undo=done["undo"])
    assert contents(folder) == before and names(away) == []


def test_a_moved_video_is_indexed_where_it_is_now(
    index: ImageIndex, folder: Path, encoders: OnnxEncoders, tmp_path: Path
) -> None:
    relocate(plan_relocation([index.paths.text(0)], folder / "best", "move"))
    report = update_index(str(folder), encoders, tmp_path / "index")
    assert (report.added, report.reused, report.removed) == (2, 2, 2)
    assert ImageIndex.open(tmp_path / "index").row_of(folder / "best/a.mp4#t=2") is not None


def test_the_page_serves_the_video_in_parts(page: Page, folder: Path) -> None:
    content = (folder / "a.mp4").read_bytes()
    whole = page.get(f"original/{page.gallery}/1")
    assert whole.content == content and whole.headers["content-type"] == "video/mp4"
    assert "sandbox" in whole.headers["content-security-policy"] and whole.headers["accept-ranges"] == "bytes"
    headers = {"Host": "127.0.0.1:7860", "Sec-Fetch-Site": "same-origin", "Range": "bytes=100-199"}
    part = page.get(f"original/{page.gallery}/1", headers)
    assert (part.status_code, part.content) == (206, content[100:200])
    saved = page.get(f"original/{page.gallery}/1?save").headers["content-disposition"]
    assert 'filename="a.mp4"' in saved
    assert page.get(f"original/{page.gallery}/1", {**headers, "Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_another_file_in_the_place_of_the_video_is_not_served(page: Page, folder: Path) -> None:
    (folder / "a.mp4").unlink()
    (folder / "a.mp4").symlink_to("/etc/passwd")
    assert page.get(f"original/{page.gallery}/0").status_code == 404
    (folder / "a.mp4").unlink()
    assert page.get(f"original/{page.gallery}/0").status_code == 404


def test_details_are_of_the_video(page: Page, folder: Path) -> None:
    found = page.act("details", row=1)
    facts = dict(found["facts"])
    assert found["path"] == facts["Path"] == str(folder / "a.mp4")
    assert facts["Size"].startswith("96 × 64 px, ")


def test_show_in_folder_shows_the_file(page: Page, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Path] = []
    monkeypatch.setattr("demo.local_files.has_desktop", lambda: True)
    monkeypatch.setattr("demo.local_files.show_in_folder", shown.append)
    page.act("show", row=1)
    assert shown == [folder / "a.mp4"]


def test_similar_photographs_are_still_duplicates(folder: Path, encoders: OnnxEncoders, tmp_path: Path) -> None:
    Image.open(folder / "d.png").save(folder / "e.bmp")
    update_index(str(folder), encoders, tmp_path / "index")
    index = ImageIndex.open(tmp_path / "index")
    groups = [[index.paths.name(row) for row in rows] for rows in find_duplicates(index, 0.99)]
    assert groups == [["a.mp4", "b copy.mp4"], ["d.png", "e.bmp"]]
