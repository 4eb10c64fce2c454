"""The Makefile: its help, and variables that reach the commands. `make -n` or a stub VENV install nothing."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TARGETS = ("setup", "lock", "train", "export", "benchmark", "demo", "test", "test-e2e", "test-slow", "lint")
VARIABLES = ("DATA=", "CONFIG=", "RUN=", "BUNDLE=", "IMAGES=", "PORT=", "SHARE=1", "AUTH=user:password", "LOCKED=1")
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="GNU make is not installed")


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment that make regards as installed; its python only prints its arguments."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    python = tmp_path / "venv/bin/python"
    python.write_text('#!/bin/sh\nprintf "<%s>" "$@"\necho\n')
    python.chmod(0o755)
    for stamp in (".extra-cpu", ".serve", ".train", ".dev"):  # each newer than its sources
        (tmp_path / "venv" / stamp).touch()
    return tmp_path / "venv"


@pytest.mark.parametrize("arguments", [(), ("help",)], ids=["make", "make help"])
def test_help_names_every_target_and_variable(arguments: tuple[str, ...]) -> None:
    done = make(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for target in TARGETS:
        assert re.search(rf"^  make {target} +\S", done.stdout, re.MULTILINE), target
    for variable in VARIABLES:
        assert variable in done.stdout, variable


def test_an_incomplete_environment_is_made_again_and_nothing_is_deleted(tmp_path: Path) -> None:
    """As on Debian without `python3-venv`: bin/python already exists when it fails."""
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/notes.txt").write_text("mine")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -m ] || exit 0\nmkdir -p "$3/bin"\ntouch "$3/bin/python"\nexit 1\n')
    python.chmod(0o755)
    for _ in range(2):
        done = make("demo", f"VENV={tmp_path / 'venv'}", f"PYTHON={python}")
        assert done.returncode == 2 and "error: no virtual environment could be made" in done.stderr
    assert (tmp_path / "venv/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("target", ["train", "benchmark"])
def test_target_without_data_is_one_line_and_exit_2(target: str, venv: Path) -> None:
    done = make(target, f"VENV={venv}")
    assert (done.returncode, done.stdout) == (2, "")
    ours, makes_own = done.stderr.splitlines()
    assert ours.startswith("error: ") and ours.endswith(f"make {target} DATA=PATH")
    assert makes_own.startswith("make: ***")


def test_demo_passes_its_variables_on(venv: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").touch()
    variables = (f"BUNDLE={tmp_path}/bundle", "IMAGES=/my images", "PORT=9000")
    done = make("demo", f"VENV={venv}", *variables, "SHARE=1", "AUTH=a:b c")
    assert done.returncode == 0, done.stderr
    expected = ["-m", "demo", "--bundle", f"{tmp_path}/bundle", "--images", "/my images", "--port", "9000"]
    assert re.findall("<(.*?)>", done.stdout) == [*expected, "--share", "--auth", "a:b c"]
    assert re.findall("<(.*?)>", make("demo", f"VENV={venv}", *variables).stdout) == expected


def test_demo_takes_any_bundle_and_makes_none(venv: Path, tmp_path: Path) -> None:
    variables = ("IMAGES=/images", "PORT=9000", "SHARE=1", "AUTH=a:b", f"VENV={venv}")
    # a folder without a manifest may be a bundle made by others; `python -m demo` checks it
    done = make("-n", "demo", *variables, f"BUNDLE={tmp_path}")
    command = " ".join(done.stdout.replace("\\\n", " ").split())
    assert (
        command
        == f'{venv}/bin/python -m demo --bundle "{tmp_path}" --images "/images" --port 9000 --share --auth "a:b"'
    )
    assert '--bundle "models/miniclip-s"' in make("-n", "demo", *variables).stdout


def test_export_replaces_the_released_bundle_only_when_it_is_named(venv: Path) -> None:
    assert '--out "bundles/x"' in make("-n", "export", "RUN=runs/x", f"VENV={venv}").stdout
    assert '--out "models/y"' in make("-n", "export", "RUN=runs/x", "BUNDLE=models/y", f"VENV={venv}").stdout


def test_train_export_and_benchmark_pass_their_variables_on(venv: Path) -> None:
    def asked(*arguments: str) -> list[str]:
        return re.findall("<(.*?)>", make(*arguments, f"VENV={venv}").stdout)

    assert asked("train", "DATA=my data", "CONFIG=configs/setup2.toml") == [
        *("-m", "train", "--config", "configs/setup2.toml", "--data", "my data", "--out", "runs/setup2")
    ]
    assert asked("export", "RUN=runs/x", "BUNDLE=bundles/y") == [
        *("-m", "export", "--run", "runs/x", "--out", "bundles/y")
    ]
    assert asked("export", "RUN=runs/x", "DATA=my data")[-2:] == ["--data", "my data"]
    assert asked("benchmark", "RUN=runs/x", "BUNDLE=bundles/y", "DATA=d", "SPLIT=dev")[:11] == [
        *(
            "-m",
            "export.benchmark",
            "--run",
            "runs/x",
            "--bundle",
            "bundles/y",
            "--data",
            "d",
            "--split",
            "dev",
            "--json",
        )
    ]


def test_an_old_python_is_reported_first(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")  # answers the version check as Python 3.10 would
    old.chmod(0o755)
    done = make("setup", f"VENV={tmp_path}/venv", f"PYTHON={old}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.11 or newer is needed; name one with PYTHON=python3.12\n")
    assert not (tmp_path / "venv").exists()


def test_lint_runs_the_formatter_the_linter_and_the_types(venv: Path) -> None:
    for tool in ("ruff", "mypy", "lint-imports"):
        (venv / "bin" / tool).symlink_to(venv / "bin/python")
    done = make("lint", f"VENV={venv}")
    assert done.returncode == 0, done.stderr
    assert re.findall("<(.*?)>", done.stdout.replace("\n", "|"))[:3] == ["format", "--check", "."]


@pytest.mark.parametrize(("target", "lock"), [("setup", "requirements.lock"), ("test-slow", "requirements-slow.lock")])
def test_a_locked_install_checks_hashes(target: str, lock: str, tmp_path: Path) -> None:
    lines = make("-n", target, "LOCKED=1", f"VENV={tmp_path}/venv").stdout.splitlines()
    installs = [line.partition(" install ")[2] for line in lines if " install " in line]
    assert installs == [f"--require-hashes -r {lock}", "--no-deps --no-build-isolation -e ."]


def test_a_gpu_environment_stays_a_gpu_environment(venv: Path) -> None:
    (venv / ".extra-cpu").rename(venv / ".extra-gpu")
    (venv / ".dev").unlink()
    lines = make("-n", "lint", f"VENV={venv}").stdout.splitlines()
    installs = [line.partition(" install ")[2] for line in lines if " install " in line]
    assert installs == ['-e ".[gpu,demo,train,dev]"', '"onnxruntime-gpu[cuda,cudnn]>=1.30"']


def test_an_environment_is_changed_for_a_gpu_on_request(venv: Path) -> None:
    done = make("setup", "EXTRA=gpu", f"VENV={venv}")
    assert done.returncode == 0, done.stderr
    calls = [re.findall("<(.*?)>", line) for line in done.stdout.splitlines() if line.startswith("<")]
    assert calls[0][-2:] == ["onnxruntime", "onnxruntime-gpu"] and "uninstall" in calls[0]
    installs = [call[-1] for call in calls if "install" in call]
    assert installs[::2] == [".[gpu,demo]", ".[gpu,demo,train]", ".[gpu,demo,train,dev]"]
    assert set(installs[1::2]) == {"onnxruntime-gpu[cuda,cudnn]"}  # up to ">="; onnxruntime had overwritten its files
    assert [path.name for path in venv.glob(".extra-*")] == [".extra-gpu"]
    again = make("setup", f"VENV={venv}")
    assert "installing" not in again.stdout


def test_lock_is_not_for_a_gpu(tmp_path: Path) -> None:
    done = make("setup", "LOCKED=1", "EXTRA=gpu", f"VENV={tmp_path}/venv")
    assert done.returncode == 2
    said = "error: requirements.lock is for EXTRA=cpu; leave out LOCKED=1 or EXTRA=gpu\n"
    assert done.stderr.startswith(said)
