"""Copies and moves of files replace nothing, can be undone, and are repaired after a kill."""

import json
import os
import shutil
from pathlib import Path

import pytest

from miniclip.errors import MiniClipError
from miniclip.index import relocate as module
from miniclip.index.move_journal import journals, new_journal, read_journal
from miniclip.index.relocate import recover, relocate, undo
from miniclip.index.relocation_plan import plan_relocation
from tests.support.journals import own_journals

__all__ = ["own_journals"]  # a fixture


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "photos" / name for name in ("a.jpg", "b.jpg", "trip/a.jpg")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path.relative_to(tmp_path)))
    return [str(path) for path in paths]


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(params=["one file system", "two file systems"])
def into(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; in the second case, a rename into it fails, as if the file came from another disk."""
    if request.param == "two file systems":

        def across(source: str, target: str) -> bool:
            return os.path.dirname(source) == os.path.dirname(target) and rename(source, target)

        rename = module._renamed
        monkeypatch.setattr(module, "_renamed", across)
    return tmp_path / "chosen"


def test_equal_names_get_numbers_and_nothing_is_replaced(photos: list[str], into: Path, tmp_path: Path) -> None:
    into.mkdir()
    (into / "a.jpg").write_text("was here before")
    plan = plan_relocation(photos, into, "move")
    assert [os.path.basename(step.target) for step in plan.steps] == ["a (2).jpg", "b.jpg", "a (3).jpg"]
    assert relocate(plan).failed == []
    assert contents(into) == {
        "a (2).jpg": "photos/a.jpg",
        "a (3).jpg": "photos/trip/a.jpg",
        "a.jpg": "was here before",
        "b.jpg": "photos/b.jpg",
    }
    assert contents(tmp_path / "photos") == {}


def test_a_name_taken_after_the_plan_gets_a_number(photos: list[str], into: Path) -> None:
    plan = plan_relocation(photos[:1], into, "move")
    into.mkdir()
    (into / "a.jpg").write_text("came in between")
    relocate(plan)
    assert contents(into) == {"a (2).jpg": "photos/a.jpg", "a.jpg": "came in between"}


@pytest.mark.parametrize("kind", ["copy", "move"])
def test_undo_restores_the_folders(photos: list[str], into: Path, tmp_path: Path, kind: str) -> None:
    before = contents(tmp_path / "photos")
    outcome = relocate(plan_relocation(photos, into, kind))
    assert len(contents(into)) == 3
    assert undo(outcome.journal).failed == []
    assert contents(tmp_path / "photos") == before and contents(into) == {}
    with pytest.raises(MiniClipError, match="nothing to undo"):
        undo()


def test_dates_and_permissions_of_a_file_survive(photos: list[str], into: Path) -> None:
    os.utime(photos[0], ns=(10**18, 10**18))
    os.chmod(photos[0], 0o640)
    relocate(plan_relocation(photos[:1], into, "move"))
    found = (into / "a.jpg").stat()
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (10**18, 0o640)


def test_undo_never_replaces_a_new_file_and_never_deletes_a_changed_copy(photos: list[str], into: Path) -> None:
    relocate(plan_relocation(photos[:1], into, "move"))
    Path(photos[0]).write_text("new")
    assert [os.path.basename(target) for _, target in undo().done] == ["a (2).jpg"]
    assert Path(photos[0]).read_text() == "new"
    relocate(plan_relocation(photos[1:2], into, "copy"))
    (into / "b.jpg").write_text("changed since")
    assert undo().failed == [(str(into / "b.jpg"), "was changed since it was copied")]
    assert (into / "b.jpg").read_text() == "changed since"


def test_an_undo_that_could_move_no_file_can_be_repeated(photos: list[str], into: Path, tmp_path: Path) -> None:
    relocate(plan_relocation(photos, into, "move"))
    moved = contents(into)
    shutil.rmtree(tmp_path / "photos")
    (tmp_path / "photos").write_text("a file where the folder was")
    outcome = undo()
    assert outcome.done == [] and len(outcome.failed) == 3 and contents(into) == moved
    (tmp_path / "photos").unlink()
    assert len(undo().done) == 3 and contents(into) == {}


def test_files_that_cannot_be_moved_are_named_with_the_reason(photos: list[str], tmp_path: Path) -> None:
    link = tmp_path / "photos/link.jpg"
    link.symlink_to(photos[0])
    paths = [photos[0], str(link), str(tmp_path / "gone.jpg"), "s3://bucket/a.jpg"]
    refused = dict(plan_relocation(paths, tmp_path / "photos", "move").refused)
    assert refused == {
        photos[0]: "is in that folder already",
        str(link): "is a link to another file",
        str(tmp_path / "gone.jpg"): "no such file or directory",
        "s3://bucket/a.jpg": "is in object storage",
    }


def test_a_file_that_changed_after_the_list_was_shown_stays(photos: list[str], into: Path) -> None:
    plan = plan_relocation(photos, into, "move")
    Path(photos[1]).write_text("edited in the meantime")
    assert relocate(plan).failed == [(photos[1], "was changed in the meantime")]
    assert Path(photos[1]).read_text() == "edited in the meantime"


@pytest.mark.parametrize("folder", ["", "relative", "s3://bucket/folder", "~nobody-of-that-name/x", "a\0b"])
def test_a_folder_that_cannot_be_used_is_refused(photos: list[str], folder: str) -> None:
    with pytest.raises(MiniClipError):
        plan_relocation(photos, folder, "move")


def test_a_file_in_place_of_the_folder_is_refused(photos: list[str]) -> None:
    with pytest.raises(MiniClipError, match="is a file"):
        plan_relocation(photos[:1], f"{photos[1]}/below", "move")


def killed_between(kind: str, source: str, target: str, copied: bool, named: bool, removed: bool) -> None:
    """The state after a kill while one file moves to another file system."""

    class Killed(BaseException):
        pass

    found = os.lstat(source)
    with pytest.raises(Killed), new_journal(kind) as journal:
        journal.begin(source, target, (found.st_size, found.st_mtime_ns))
        partial = module._partial(target, journal.id)
        shutil.copy2(source, partial)
        if copied:
            inode = os.lstat(partial)
            journal.copied((inode.st_dev, inode.st_ino))
        if named:
            os.rename(partial, target)
        if removed:
            os.unlink(source)
        raise Killed


@pytest.mark.parametrize(
    ("copied", "named", "removed", "at_target"),
    [
        (False, False, False, False),
        (True, False, False, False),
        (True, True, False, True),
        (True, True, True, True),
    ],
)
def test_recovery_leaves_the_file_in_exactly_one_place(
    photos: list[str], into: Path, copied: bool, named: bool, removed: bool, at_target: bool
) -> None:
    into.mkdir()
    killed_between("move", photos[0], str(into / "a.jpg"), copied, named, removed)
    assert len(recover()) == 1 and recover() == []
    assert contents(into) == ({"a.jpg": "photos/a.jpg"} if at_target else {})
    assert Path(photos[0]).exists() is not at_target
    if at_target:  # the move can be undone
        undo()
        assert Path(photos[0]).read_text() == "photos/a.jpg"


def test_recovery_never_touches_a_file_of_another_program(photos: list[str], into: Path) -> None:
    into.mkdir()
    killed_between("move", photos[0], str(into / "a.jpg"), copied=True, named=False, removed=False)
    (into / "a.jpg").write_text("photos/a.jpg")  # equal, but not ours
    recover()
    assert contents(into) == {"a.jpg": "photos/a.jpg"} and Path(photos[0]).exists()


def test_an_original_that_was_edited_after_the_kill_is_kept(photos: list[str], into: Path) -> None:
    into.mkdir()
    killed_between("move", photos[0], str(into / "a.jpg"), copied=True, named=True, removed=False)
    Path(photos[0]).write_text("edited after the kill")
    assert "both are kept" in recover()[0]
    assert Path(photos[0]).read_text() == "edited after the kill" and (into / "a.jpg").exists()


def test_a_journal_truncated_by_a_kill_is_read_up_to_its_end(photos: list[str], into: Path) -> None:
    outcome = relocate(plan_relocation(photos, into, "move"))
    path = journals()[-1]
    path.write_text(path.read_text().rpartition('{"done"')[0] + '{"don')
    record = read_journal(path)
    assert len(record.done) == 2 and record.open_entry is not None and not record.has_ended
    recover()
    assert len(undo(outcome.journal).done) == 3
    assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines() if line.endswith("}"))


def test_names_that_are_not_utf_8_are_moved(tmp_path: Path, into: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(name, "w") as file:
        file.write("x")
    relocate(plan_relocation([os.fsdecode(name)], into, "move"))
    assert os.listdir(os.fsencode(into)) == [b"caf\xe9.jpg"]
    undo()
    assert os.path.exists(name)
