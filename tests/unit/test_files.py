"""Files are replaced completely or not at all: no incomplete file stays, and the first error is reported."""

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from miniclip import files
from miniclip.errors import MiniClipError
from miniclip.files import rename_to_free_name, replace_atomically, write_json


def test_ctrl_c_while_saving_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")

    def write(partial: Path) -> None:
        partial.write_text("half of the n")
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        replace_atomically(path, write)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("state", "old")]


def test_a_failed_cleanup_does_not_hide_the_first_error(tmp_path: Path) -> None:
    (tmp_path / "state.partial").mkdir()  # it can be neither written nor unlinked
    with pytest.raises(MiniClipError, match=r"cannot write .*state: Is a directory; free some space"):
        replace_atomically(tmp_path / "state", lambda partial: partial.write_text("new"))


def save_tensors(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({str(number): torch.zeros(4096) for number in range(16)}, file)


@pytest.mark.parametrize(
    "write",
    [save_tensors, lambda path: path.write_bytes(bytes(1 << 18)), lambda path: write_json(path, "x" * (1 << 18))],
    ids=["tensors", "bytes", "json"],
)
def test_a_failed_write_keeps_the_old_file(write: object, tmp_path: Path) -> None:
    """The file exceeds a limit of the system, which needs no mounted disk."""
    path = tmp_path / "file"
    path.write_text(json.dumps("before"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(MiniClipError, match=r"cannot write .*file.*: File too large; free some space"):
            replace_atomically(path, write)  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == json.dumps("before")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("one_step", [True, False], ids=["one step", "two steps"])
def test_a_rename_never_replaces_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: bool, links: bool
) -> None:
    """Even on a system without such a rename, and on a disk without links."""
    if not one_step:
        monkeypatch.setattr(files, "_rename_in_one_step", lambda source, target: False)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "new").write_text("new")
    (tmp_path / "taken").write_text("taken")
    with pytest.raises(FileExistsError):
        rename_to_free_name(str(tmp_path / "new"), str(tmp_path / "taken"))
    rename_to_free_name(str(tmp_path / "new"), str(tmp_path / "free"))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"free": "new", "taken": "taken"}


def no_links(source: str, target: str, follow_symlinks: bool = True) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
