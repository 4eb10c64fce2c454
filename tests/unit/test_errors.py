"""An obstacle to a command is one line and status 2, even if Python itself raises it."""

import ast
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miniclip.cli.command import run_command
from miniclip.cli.main import run
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.files import expand
from miniclip.index.image_index import ImageIndex
from miniclip.index.scan import scan_images
from miniclip.index.watch import watch
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.cli import REPOSITORY

NOBODY = 65534


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder without permission, even if the tests run as root, which may enter every folder."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield folder
    if user == 0:
        os.seteuid(0)
    folder.chmod(0o700)


def refused(command: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        run_command(command)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_folder_without_permission_is_one_line(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["info", f"{closed}/bundle"],
        ["search", "a dog", "--index", f"{closed}/index"],
        ["duplicates", "--index", f"{closed}/index"],
    ):
        error = refused(lambda command=command: run(command), capsys)  # type: ignore[misc]
        assert "Permission denied" in error and str(closed) in error and "give another path" in error
    with pytest.raises((MiniClipError, PermissionError)):
        scan_images(f"{closed}/pictures")


def test_an_unwritable_bundle_is_refused_before_embedding(
    tiny_bundle: Path, captioned_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as parent:  # other users may not enter the parent of `tmp_path`
        os.chmod(parent, 0o755)
        folder = Path(parent, "bundle")
        shutil.copytree(tiny_bundle, folder)
        before = (folder / "manifest.json").read_bytes()
        for path in (*folder.rglob("*"), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        try:
            error = refused(lambda: run(["calibrate", str(folder), "--data", str(captioned_folder)]), capsys)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
        assert error == f"error: {folder} cannot be written; copy the bundle and calibrate the copy\n"
        assert (folder / "manifest.json").read_bytes() == before


def test_name_that_is_too_long_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "File name too long" in refused(lambda: run(["info", "n" * 5000]), capsys)


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on a missing network share."""
    folder, stat = tmp_path / "share", os.stat

    def ask(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if isinstance(path, str | Path) and str(path).startswith(str(folder)):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        return stat(path, *arguments, **more)

    monkeypatch.setattr(os, "stat", ask)
    return folder


def test_a_missing_network_share_is_one_line(share: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        lambda: len(scan_images(f"{share}/photos").files),
        lambda: run(["search", "a dog", "--index", f"{share}/index"]),
    ):
        error = refused(command, capsys)
        assert "not connected" in error and str(share) in error and "check its disk or network share" in error


def test_watching_continues_if_a_share_disappears(share: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    reported: list[str] = []

    def tell(line: str) -> None:
        reported.append(line)
        if len(reported) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(f"{share}/photos", OnnxEncoders(Bundle.open(tiny_bundle), "cpu"), tmp_path / "index", tell)
    assert reported[1].startswith("not updated: ") and "not connected" in reported[1] and str(share) in reported[1]


def test_disk_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/media/cd/run")

    assert "Read-only file system for /media/cd/run; give another path" in refused(command, capsys)


def test_a_bug_still_gives_a_traceback() -> None:
    def command() -> int:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a file of our own")

    with pytest.raises(FileNotFoundError, match="of our own"):
        run_command(command)


def test_the_cause_of_an_error_is_kept() -> None:
    """`--debug` shows it. Errors of argparse, Gradio and HTTP, and an interrupt, need no cause."""
    ends = ("argparse.ArgumentTypeError", "gr.Error", "HTTPException", "KeyboardInterrupt")
    hidden = [
        f"{file}:{node.lineno}"
        for package in ("miniclip", "train", "export", "demo")
        for file in (REPOSITORY / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.cause, ast.Constant)
        and not ast.unparse(node.exc or node).startswith(ends)
    ]
    assert hidden == []


# home folders


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("~/a b/c") == tmp_path / "a b/c" and expand("a/~") == Path("a/~")


def test_an_unknown_home_folder_is_one_line(tiny_index: Path) -> None:
    index = ImageIndex.open(tiny_index)
    for use in (scan_images, read_captions, index.below, index.row_of):
        with pytest.raises(MiniClipError) as error:
            use("~Pictures/2024")  # type: ignore[operator]
        assert str(error.value) == "~Pictures is not a home folder here; write ~/Pictures/2024, or ./~Pictures/2024"
