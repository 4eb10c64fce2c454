"""The best of several copies stays, the others are moved, and nothing is lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from miniclip.cli.main import run
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.relocate import relocate
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.best_copy import choose_best, plan_others, sharpness
from tests.support.cli import REPOSITORY
from tests.support.drawing import draw_image
from tests.support.journals import own_journals

__all__ = ["own_journals"]  # a fixture

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """One motif in four qualities, and another image; the best one is not the first by name."""
    folder = tmp_path / "photos"
    folder.mkdir()
    image = draw_image("red", "circle", (640, 480))
    image.resize((320, 240)).save(folder / "a small.png")
    image.filter(ImageFilter.GaussianBlur(4)).save(folder / "b blurred.png")
    image.save(folder / "c best.png")
    (folder / "d copy.png").write_bytes((folder / "c best.png").read_bytes())
    draw_image("blue", "square", (640, 480)).save(folder / "e other.png")
    return folder


@pytest.fixture
def index(photos: Path, tiny_bundle: Path, tmp_path: Path) -> ImageIndex:
    update_index(str(photos), OnnxEncoders(Bundle.open(tiny_bundle), "cpu", threads=1), tmp_path / "index")
    return ImageIndex.open(tmp_path / "index")


def rows(index: ImageIndex, *names: str) -> list[int]:
    return [next(row for row in range(len(index)) if index.paths[row].name.startswith(name)) for name in names]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_copy_with_most_pixels_then_the_sharpest_is_kept(index: ImageIndex) -> None:
    (choice,) = choose_best([rows(index, "a", "b", "c", "d")], index, threshold=-1.0)
    assert choice.kept == rows(index, "c")[0]
    assert choice.others == rows(index, "d", "b", "a")


def test_an_image_goes_only_if_it_resembles_the_kept_one(index: ImageIndex) -> None:
    """At a threshold of 1, only equal files are similar, whatever the group says."""
    (choice,) = choose_best([rows(index, "a", "b", "c", "d", "e")], index, threshold=1.0)
    assert (choice.kept, choice.others) == (rows(index, "c")[0], rows(index, "d"))


def test_a_deleted_or_changed_file_is_never_the_better_copy(index: ImageIndex, photos: Path) -> None:
    (photos / "c best.png").unlink()
    (photos / "d copy.png").write_bytes(b"changed")
    (choice,) = choose_best([rows(index, "a", "b", "c", "d")], index, threshold=-1.0)
    assert (choice.kept, choice.others) == (rows(index, "b")[0], rows(index, "a"))


def test_hard_links_count_as_one_file(photos: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (photos / "0 link.png").symlink_to(photos / "c best.png")
    update_index(str(photos), OnnxEncoders(Bundle.open(tiny_bundle), "cpu", threads=1), tmp_path / "index")
    index = ImageIndex.open(tmp_path / "index")
    (choice,) = choose_best([rows(index, "0", "c", "d")], index, threshold=1.0)
    outcome = relocate(plan_others([choice], index, str(tmp_path / "away")))
    assert (photos / "c best.png").exists() or [os.path.basename(source) for source, _ in outcome.done] == [
        "c best.png"
    ]
    assert len(outcome.done) == 1


def test_an_image_stays_if_its_better_copy_changed(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    plan = plan_others(choose_best([rows(index, "c", "d")], index, 1.0), index, str(tmp_path / "away"))
    (photos / "c best.png").unlink()
    assert "the copy that is kept was changed" in relocate(plan).failed[0][1]
    assert (photos / "d copy.png").exists()


def test_a_blurred_image_is_less_sharp() -> None:
    image = draw_image("red", "circle", (640, 480))
    assert sharpness(image) > 2 * sharpness(image.filter(ImageFilter.GaussianBlur(4)))
    assert sharpness(Image.new("RGB", (2, 2))) == 0


def test_the_command_lists_first_then_moves_with_yes_and_can_be_undone(
    index: ImageIndex, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    before, away = names(photos), tmp_path / "away"
    command = ["duplicates", "--index", str(index.folder), "--threshold", "1", "--move-to", str(away)]
    assert run(command) == 0
    said = capsys.readouterr()
    listed = [line.split("\t") for line in said.out.splitlines()]
    assert listed == [
        ["1", "keep", str(photos / "c best.png")],
        ["1", "move", f"{photos / 'd copy.png'} -> {away / 'd copy.png'}"],
    ]
    assert "nothing was moved yet; add --yes" in said.err and names(photos) == before
    assert run([*command, "--yes"]) == 0
    assert names(away) == ["d copy.png"] and "miniclip undo" in capsys.readouterr().err
    assert run(["undo"]) == 0
    assert names(photos) == before and names(away) == []
    with pytest.raises(MiniClipError, match="nothing to undo"):
        run(["undo"])


def test_a_home_folder_of_nobody_is_refused(index: ImageIndex) -> None:
    with pytest.raises(MiniClipError, match="~nobody9 is not a home folder here"):
        run(["duplicates", "--index", str(index.folder), "--move-to", "~nobody9/away", "--yes"])


def test_undo_reports_that_nothing_is_left_to_undo(
    index: ImageIndex, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    run(["duplicates", "--index", str(index.folder), "--threshold", "1", "--move-to", str(tmp_path / "away"), "--yes"])
    (tmp_path / "away/d copy.png").rename(photos / "d copy.png")
    capsys.readouterr()
    assert run(["undo"]) == 0 and "no file is left to move back" in capsys.readouterr().err


def test_other_copies_go_to_the_trash(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    """In a separate process, so that the trash is not the user's."""
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-m", "miniclip.cli", "duplicates", "--index", str(index.folder)]
    environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    done = subprocess.run(
        [*command, "--threshold", "1", "--trash", "--yes"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "restore them from the trash" in done.stderr
    assert names(photos) == ["a small.png", "b blurred.png", "c best.png", "e other.png"]
    assert [path.name for path in tmp_path.rglob("d copy.png")] == ["d copy.png"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--yes"], "--yes needs an action"),
        (["--trash", "--json"], "leave out --json"),
        (["--trash", "--move-to", "x"], "not allowed with"),
    ],
)
def test_conflicting_flags_are_refused(index: ImageIndex, flags: list[str], expected: str) -> None:
    with pytest.raises(MiniClipError, match=expected):
        run(["duplicates", "--index", str(index.folder), *flags])


def test_a_folder_is_indexed_first(
    photos: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(photos)
    command: Callable[..., int] = lambda *words: run(  # noqa: E731
        ["duplicates", *words, "--bundle", str(tiny_bundle), "--provider", "cpu", "--threshold", "1"]
    )
    for words in ([], [str(photos)]):
        assert command(*words) == 0
        assert [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()] == [
            "c best.png",
            "d copy.png",
        ]
