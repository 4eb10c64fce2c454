"""`make demo BUNDLE=someone/replica`: the page opens with a bundle from a hub, and once more when the hub is gone."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, DemoProcess
from tests.support.hub_server import HubServer, Repository, read_files
from tests.support.replicas import REPLICAS

NAME = "someone/replica"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="GNU make is not installed")


class MadeDemo(DemoProcess):
    """The page from `make demo`, in an environment that make regards as installed."""

    def __init__(self, hub: HubServer, images: Path, tmp_path: Path) -> None:
        self._hub, self._images, self._tmp = hub, images, tmp_path
        super().__init__()

    def start(self, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
        venv = self._tmp / "venv"
        (venv / "bin").mkdir(parents=True, exist_ok=True)
        python = venv / "bin/python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        for stamp in (".extra-cpu", ".serve"):
            (venv / stamp).touch()
        port = command[command.index("--port") + 1]
        variables = [f"BUNDLE={NAME}", f"IMAGES={self._images}", f"PORT={port}", f"VENV={venv}"]
        hub = {"HF_ENDPOINT": self._hub.address, "HF_HOME": str(self._tmp / "hub"), "HF_HUB_OFFLINE": "0"}
        hub |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*", "MINICLIP_CACHE": str(self._tmp / "cache")}
        inherited = {k: v for k, v in environment.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        return subprocess.Popen(
            ["make", "--no-print-directory", "demo", *variables, "DEMO_FLAGS=--no-browser --provider cpu"],
            cwd=REPOSITORY,
            env={**inherited, **hub, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __exit__(self, *error: object) -> None:
        os.killpg(self.pid, signal.SIGTERM)  # make, and the page that it started
        self._process.communicate(timeout=60)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    replica = REPLICAS["Xenova/siglip"](tmp_path / "replica")
    server = HubServer().start()
    server.repositories[NAME] = Repository()
    server.repositories[NAME].commit(read_files(replica.folder))
    yield server
    server.stop()


def test_page_opens_by_name_and_again_without_the_hub(
    hub: HubServer, image_folder: Path, tmp_path: Path, open_tab: Callable[[str], Any]
) -> None:
    with MadeDemo(hub, image_folder, tmp_path) as demo:
        tab = open_tab(demo.url)
        tab.locator("#results .card").first.wait_for()
        tab.goto("about:blank")  # an open page would report that its server is gone
    asked = len(hub.requests)
    hub.stop()
    with MadeDemo(hub, image_folder, tmp_path) as demo:
        tab = open_tab(demo.url)
        tab.locator("#results .card").first.wait_for()
        tab.goto("about:blank")  # an open page would report that its server is gone
    assert asked == len(hub.requests) > 0
