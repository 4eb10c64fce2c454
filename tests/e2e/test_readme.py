"""The README is correct: its commands and its Python run as written."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import REPOSITORY, run_cli

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def commands_of(section: str) -> list[str]:
    """The commands in the indented lines below a heading."""
    block = README.split(f"## {section}\n")[1].split("\n## ")[0]
    return [line.strip() for line in block.splitlines() if re.match(r"    \S", line) and "->" not in line]


def test_search_commands_run_and_leave_the_folder_as_it_was(tmp_path: Path, image_folder: Path) -> None:
    pictures = tmp_path / "Pictures"
    shutil.copytree(image_folder, pictures)
    before = sorted(pictures.rglob("*"))
    commands = commands_of("Search")
    assert [shlex.split(command.split("&& ")[-1])[:2] for command in commands] == [
        ["miniclip", "search"],
        ["miniclip", "search"],
        ["miniclip", "demo"],
    ]
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    shell = f'miniclip() {{ {shlex.quote(sys.executable)} -m miniclip "$@"; }}\n'
    for command in commands[:2]:  # the third one would run for ever; tests/e2e/test_page.py runs it
        done = subprocess.run(
            ["bash", "-c", shell + command], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert str(pictures) in done.stdout
    assert sorted(pictures.rglob("*")) == before


def test_python_of_the_readme_runs(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(image_folder, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    code = README.split("```python\n")[1].split("```")[0]
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(str(tmp_path / "photos") in line for line in lines)


def test_commands_from_captions_to_search_run(
    tmp_path: Path, captioned_folder: Path, image_folder: Path, tiny_config: Path
) -> None:
    replaced = {
        "configs/setup1.toml": tiny_config,
        "DATA": captioned_folder,
        "runs/mine": tmp_path / "run",
        "bundles/mine": tmp_path / "bundle",
        "~/Pictures": image_folder,
    }
    ran = []
    for command in commands_of("Train your own"):
        words = [str(replaced.get(word, word)) for word in shlex.split(command)]
        assert words[0] == "miniclip"
        words += ["--turns", "1"] if words[1] == "benchmark" else []  # speeds do not matter here
        done = run_cli("miniclip.cli", *words[1:])
        if words[1] == "benchmark" and done.returncode == 1:  # such a small model may miss its tolerances
            assert "parity failed: " in done.stdout
        else:
            assert done.returncode == 0, done.stderr
        ran.append(words[1])
    assert ran == ["train", "export", "benchmark", "search"]
