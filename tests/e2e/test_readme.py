"""The README tells the truth: its commands run, and its tree names every file."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import REPOSITORY, run_cli

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
ROOMS = ("miniclip", "train", "export", "demo", "benchmarks")


def tracked_files() -> list[str]:
    done = subprocess.run(["git", "ls-files", *ROOMS], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git checkout, so nothing says which files belong to it")
    return [name for name in done.stdout.split() if not name.endswith("__init__.py")]


def test_tree_names_every_file_of_the_rooms() -> None:
    tree = README.split("## The house")[1]
    missing = [name for name in tracked_files() if not re.search(rf"\b{re.escape(Path(name).name)}\b", tree)]
    assert not missing


def test_tree_names_no_file_that_is_gone() -> None:
    tree = README.split("## The house")[1].split("Arrows point down")[0]
    names = set(re.findall(r"[\w./-]+\.(?:py|toml|css|js|md|png)\b", tree))
    there = {path.name for path in REPOSITORY.rglob("*") if ".venv" not in path.parts}
    assert {name for name in names if Path(name).name not in there} == set()


def test_commands_from_captions_to_search_run(
    tmp_path: Path, captioned_folder: Path, image_folder: Path, tiny_config: Path
) -> None:
    block = README.split("## From captions to a search page")[1].split("(in the environment")[0]
    replaced = {
        "configs/setup1.toml": tiny_config,
        "DATA": captioned_folder,
        "runs/mine": tmp_path / "run",
        "bundles/mine": tmp_path / "bundle",
        "~/Pictures": image_folder,
        "index/pictures": tmp_path / "index",
    }
    commands = [line.strip() for line in block.splitlines() if line.startswith("    ")]
    ran = []
    for command in commands:
        words = [str(replaced.get(word, word)) for word in shlex.split(command)]
        if words[:3] == ["python", "-m", "demo"]:
            continue  # it would serve for ever; tests/e2e/test_page.py runs it
        words = words[2:] if words[0] == "python" else ["miniclip.cli", *words[1:]]
        if words[0] == "export.benchmark":
            words += ["--turns", "1"]  # its speeds are of no interest here
        done = run_cli(*words)
        if words[0] == "export.benchmark" and done.returncode == 1:  # so small a model may miss its tolerances
            assert "parity failed: " in done.stdout
        else:
            assert done.returncode == 0, done.stderr
        ran.append(words[0])
    assert ran == ["train", "export", "export.benchmark", "miniclip.cli", "miniclip.cli"]
