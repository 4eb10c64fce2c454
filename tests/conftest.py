"""Shared fixtures: a tiny real model, the bundle exported from it, and small real images. No network.

The folder or the marker of a test determines its tier. `tests/e2e` and `tests/security`, which attacks a shared page,
are `e2e`, and `tests/slow` is `slow`. `make test` runs all others.
"""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from tests.support.cli import REPOSITORY, run_cli
from tests.support.drawing import make_captioned_images
from tests.support.measurements import pytest_terminal_summary, record
from tests.support.shared import made_once
from tests.support.tiny import write_backbones, write_recipe

__all__ = ["pytest_terminal_summary", "record"]  # a hook and a fixture

# Background jobs of a script, and their children, ignore Ctrl-C, but some tests send one.
signal.signal(signal.SIGINT, signal.default_int_handler)
TIERS = {"e2e": "e2e", "security": "e2e", "slow": "slow"}

hypothesis.settings.register_profile("quick", max_examples=25, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=150, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the tier of each test before `-m` selects."""
    for item in items:
        folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
        if folder in TIERS:
            item.add_marker(TIERS[folder])


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests compute their own features and never touch the user's cache or journals."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MINICLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("MINICLIP_STATE", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="session", autouse=True)
def _no_text_reader() -> None:
    """Only the tests of the extra `ocr` read text, because it takes longer than embedding."""
    pytest.MonkeyPatch().setattr("miniclip.index.image_texts.can_read_text", lambda: False)


@pytest.fixture(scope="session")
def image_folder() -> Path:
    """Twelve captioned images."""
    return made_once("pictures/shapes", lambda folder: make_captioned_images(folder, per_kind=1))


@pytest.fixture(scope="session")
def captioned_folder() -> Path:
    """A hundred and twenty captioned images, enough to train heads."""
    return made_once("data/shapes", lambda folder: make_captioned_images(folder, per_kind=10))


@pytest.fixture(scope="session")
def tiny_backbones() -> tuple[Path, Path]:
    """The folders of a vision and a text backbone."""
    folder = made_once("backbones", lambda folder: write_backbones(folder / "vision", folder / "text"))
    return folder / "vision", folder / "text"


@pytest.fixture(scope="session")
def tiny_config(tiny_backbones: tuple[Path, Path]) -> Path:
    """A recipe for the tiny backbones that trains in seconds."""
    return made_once("config", lambda folder: write_recipe(folder / "tiny.toml", *tiny_backbones)) / "tiny.toml"


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path, captioned_folder: Path) -> Path:
    """A run trained by the real command."""
    flags = ["--config", tiny_config, "--data", captioned_folder]
    return made_once("runs/tiny", lambda folder: succeed("train", *flags, "--out", folder))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """Its bundle, exported by the real command: fp32, fp16 and int8."""
    return made_once("bundles/tiny", lambda folder: succeed("export", "--run", tiny_run, "--out", folder))


@pytest.fixture(scope="session")
def tiny_index(tiny_bundle: Path, image_folder: Path) -> Path:
    """An index of the twelve images."""
    flags = ["index", image_folder, "--bundle", tiny_bundle]
    return made_once("index/shapes", lambda folder: succeed("miniclip.cli", *flags, "--out", folder))


def succeed(command: str, *arguments: object) -> None:
    done = run_cli(command, *arguments)
    assert done.returncode == 0, done.stderr
