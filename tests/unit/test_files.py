"""Files that are replaced whole or not at all: nothing half-written stays, and the first error speaks."""

import json
import resource
import signal
from pathlib import Path

import pytest
import torch

from miniclip.errors import MiniClipError
from miniclip.files import replace_atomically, write_json


def test_ctrl_c_while_saving_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")

    def write(partial: Path) -> None:
        partial.write_text("half of the n")
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        replace_atomically(path, write)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("state", "old")]


def test_what_cannot_even_be_removed_leaves_the_word_to_the_first_error(tmp_path: Path) -> None:
    (tmp_path / "state.partial").mkdir()  # neither written nor unlinked
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
def test_a_file_that_cannot_be_written_is_as_it_was(write: object, tmp_path: Path) -> None:
    """Any file that outgrows a limit of the system; no mount is needed."""
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
