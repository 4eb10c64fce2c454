"""Run commands in this process or in a new one."""

import contextlib
import importlib
import io
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from miniclip.cli.command import run_command

REPOSITORY = Path(__file__).resolve().parents[2]
Done = subprocess.CompletedProcess[str]


def run_cli(command: str, *arguments: object) -> Done:
    """Run `python -m COMMAND ARGUMENTS` in this process; returns exit status and output.

    A new process would spend most of its time on imports; `tests/e2e/test_processes.py` starts one for each command.
    Unexpected errors of the command are raised. The environment, the current folder, loggers and torch's random state
    are restored.
    """
    words = [str(argument) for argument in arguments]
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), _restored_state():
        try:
            _main_of(command)(words)
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    texts = [stream.buffer.getvalue().decode(errors="backslashreplace") for stream in (out, errors)]
    return Done([command, *words], status, *texts)


def run_module(*arguments: object) -> Done:
    """Run `python -m ...` from the checkout as a user would."""
    command = [sys.executable, "-m", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


def _main_of(command: str):
    if command == "miniclip.cli":
        return importlib.import_module("miniclip.cli.main").main
    module = command if command in ("train.interpolate", "train.soup") else f"{command}.__main__"
    main = importlib.import_module(module).main
    return lambda words: run_command(partial(main, words))


@contextlib.contextmanager
def _restored_state():
    environment, folder = os.environ.copy(), Path.cwd()
    loggers = {name: (log.handlers[:], log.level) for name in ("", "miniclip") for log in [logging.getLogger(name)]}
    torch = sys.modules.get("torch")
    random_state = torch.get_rng_state() if torch else None
    os.chdir(REPOSITORY)
    try:
        yield
    finally:
        os.chdir(folder)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        for name, (handlers, level) in loggers.items():
            log = logging.getLogger(name)
            log.handlers[:] = handlers
            log.setLevel(level)
        if torch:
            torch.set_rng_state(random_state)
