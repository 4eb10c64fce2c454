"""Every command as a process: its exit status, its one line for a mistake, signals, and closed streams.

`tests/unit/test_commands.py` tests the results of the commands, without processes.
"""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from miniclip.index.image_index import ImageIndex
from tests.support.cli import REPOSITORY, run_module

COMMANDS = {
    "train": "--config",
    "train.interpolate": "--before",
    "export": "--precision",
    "export.benchmark": "--turns",
    "demo": "--port",
    "miniclip.cli": "miniclip search",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_exit_0_and_a_wrong_flag_exit_2_with_one_line(command: str) -> None:
    done = run_module(command, "--help")
    assert (done.returncode, done.stderr) == (0, "") and COMMANDS[command] in done.stdout
    done = run_module(command, "--no-such-flag")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr


def test_the_installed_command_is_the_module() -> None:
    script = Path(sys.executable).with_name("miniclip")
    if not script.exists():
        pytest.skip("the package is not installed, so there is no console script")
    done = subprocess.run([script, "info", "models/miniclip-s"], cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_train_export_index_and_search_as_processes(
    tiny_config: Path, captioned_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    """`run_cli` could hide that a command needs state of an earlier one."""
    run, bundle, index = tmp_path / "run", tmp_path / "bundle", tmp_path / "index"
    for words in (
        ("train", "--config", tiny_config, "--data", captioned_folder, "--out", run),
        ("export", "--run", run, "--out", bundle),
        ("miniclip.cli", "index", image_folder, "--bundle", bundle, "--out", index),
        ("miniclip.cli", "search", "a red circle", "--index", index),
    ):
        done = run_module(*words)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert len(done.stdout.splitlines()) == 10


def test_interrupted_training_is_exit_130_without_a_traceback(
    tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    words = ("--config", tiny_config, "--data", captioned_folder, "--out", tmp_path / "run", "--train.epochs", "100000")
    command = [sys.executable, "-m", "train", *map(str, words), "--train.patience", "100000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=REPOSITORY, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors


def test_a_closed_pipe_gives_no_traceback(tiny_index: Path) -> None:
    command = [sys.executable, "-m", "miniclip.cli", "search", "red", "--index", str(tiny_index)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # before it prints anything, like `| head -0`
    errors = process.stderr.read()
    assert (process.wait(60), errors) == (141, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_not_an_error(tiny_bundle: Path, image_folder: Path, tmp_path: Path, closed: str) -> None:
    python, index = f"{shlex.quote(sys.executable)} -m miniclip.cli", shlex.quote(str(tmp_path / "index"))
    make = f"{python} index {shlex.quote(str(image_folder))} --bundle {shlex.quote(str(tiny_bundle))} --out {index}"
    search = f"{python} search 'a dog' --index {index}"
    for command in (make, search):
        done = subprocess.run(
            ["sh", "-c", f"{command} {closed}"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert len(ImageIndex.open(tmp_path / "index")) == 12
