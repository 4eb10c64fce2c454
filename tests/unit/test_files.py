"""Files that are replaced whole or not at all: nothing half-written stays, and the first error speaks."""

import signal
from pathlib import Path

import pytest

from miniclip.errors import MiniClipError
from miniclip.files import replace_atomically


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
