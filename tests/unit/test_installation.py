"""Messages name commands that work here: in a checkout, in the environment of a wheel, under make."""

import os
import sys
from pathlib import Path

import pytest

from miniclip import installation
from miniclip.cli.command import run_command
from miniclip.errors import InvalidArgument, MiniClipError
from miniclip.installation import install, program
from miniclip.models.config import load_config


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment below the current folder, with the wheel in it."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    pip = tmp_path / ".venv/bin/pip"
    pip.touch()
    pip.chmod(0o755)
    (tmp_path / ".venv/lib/miniclip").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / ".venv/lib/miniclip")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_wheel_is_installed_from_its_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install("train") == '.venv/bin/pip install "miniclip[train]"'
    monkeypatch.setenv("PATH", str(environment / ".venv/bin"))  # it is activated
    assert install("train") == 'pip install "miniclip[train]"'
    monkeypatch.setattr(sys, "prefix", "/home/me/.local/share/pipx/venvs/miniclip")
    assert install("demo") == 'pipx install --force "miniclip[demo]"'
    monkeypatch.setattr(sys, "prefix", "/home/me/.local/share/uv/tools/miniclip")
    assert install("demo") == 'uv tool install "miniclip[demo]"'
    assert program("export.benchmark") == "miniclip benchmark"


def test_a_checkout_is_installed_from_its_folder(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (environment / "pyproject.toml").touch()
    (environment / "train").mkdir()
    monkeypatch.setattr(installation, "PACKAGE", environment / "miniclip")
    assert install("train") == '.venv/bin/pip install -e ".[train]"'
    assert program("export.benchmark") == "python -m export.benchmark"
    (environment / "elsewhere").mkdir()
    monkeypatch.chdir(environment / "elsewhere")
    assert install("train") == f'{environment}/.venv/bin/pip install -e "{environment}[train]"'


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            MiniClipError("runs/x holds a run; add --resume, or choose another --out"),
            "add RESUME=1, or choose another RUN=",
        ),
        (MiniClipError("port 7860 is in use; choose another with --port N"), "choose another with PORT=N"),
        (MiniClipError("--out-of-range and --train.epochs are no variables"), "--out-of-range and --train.epochs are"),
        (InvalidArgument("out", "is empty"), "error: RUN= is empty"),
    ],
)
def test_messages_under_make_name_make_variables(
    error: MiniClipError, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINICLIP_FLAGS", "--out=RUN= --resume=RESUME=1 --port=PORT=")

    def fail() -> int:
        raise error

    with pytest.raises(SystemExit):
        run_command(fail)
    assert shown in capsys.readouterr().err
    monkeypatch.delenv("MINICLIP_FLAGS")
    with pytest.raises(SystemExit):
        run_command(fail)
    assert "=" not in capsys.readouterr().err


def test_a_recipe_is_found_by_its_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("setup1")).train.setup == 1 == load_config(Path("setup1.toml")).train.setup
    (tmp_path / "setup1").write_text("[train]\nsetup = 3\n")
    assert load_config(Path("setup1")).train.setup == 3  # a file of that name comes first
    with pytest.raises(MiniClipError, match=r"cannot read the config setup9: .*; the recipes that ship are .*setup1, "):
        load_config(Path("setup9"))
    with pytest.raises(MiniClipError, match="cannot read the config other/setup1"):
        load_config(Path("other/setup1"))
    assert os.listdir() == ["setup1"]
