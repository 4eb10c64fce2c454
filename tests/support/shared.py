"""Folders that many tests read and that take seconds to make.

They are made once for all workers of pytest, and again when the code that makes them changes. They stay in
`.pytest_cache/made/HASH`, because runs and indexes hold absolute paths. Tests only read them; a test that writes makes
a copy first. Commands may add derived files, such as `captions.npz`.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from tests.support.cli import REPOSITORY

SOURCES = ("miniclip", "train", "export", "tests/support", "tests/conftest.py")
PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "lancedb", "pillow", "tokenizers", "numpy")


@lru_cache
def made_folder() -> Path:
    """The folder of all of them; `MINICLIP_TESTS_MADE` names another one, without a check of its sources."""
    if "MINICLIP_TESTS_MADE" in os.environ:
        return Path(os.environ["MINICLIP_TESTS_MADE"])
    digest = hashlib.sha256("".join(map(version, PACKAGES)).encode())
    for source in SOURCES:
        path = REPOSITORY / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    folder = REPOSITORY / ".pytest_cache/made" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`; in the first session, the first worker that needs it calls `make`."""
    folder, note = made_folder() / name, made_folder() / f"{name.replace('/', '-')}.files"
    with FileLock(note.with_suffix(".lock")):
        if not note.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            make(folder)
            note.write_text(_files_of(folder))
        elif changed := set(note.read_text().splitlines()) - set(_files_of(folder).splitlines()):
            note.unlink()
            raise AssertionError(f"a test has written into {folder}; it must copy what it changes: {sorted(changed)}")
    return folder


def _files_of(folder: Path) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in paths)
