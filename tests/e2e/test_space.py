"""`python -m demo.space`: the folder is complete, names no path of this machine, and starts with `python app.py`."""

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from demo.space import main
from miniclip.errors import MiniClipError


@pytest.fixture(scope="module")
def space(tiny_bundle: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert (
            main(["--images", str(image_folder), "--bundle", str(tiny_bundle), "--out", str(folder / "my-space")]) == 0
        )
    finally:
        os.chdir(before)
    return folder / "my-space"


def test_a_space_names_no_path_of_this_machine(space: Path, image_folder: Path, tiny_bundle: Path) -> None:
    private = [str(path).encode() for path in (image_folder, tiny_bundle, space.parent, Path.home())]
    for file in space.rglob("*"):
        if file.is_file() and "bundle" not in file.parts:
            assert not [path for path in private if path in file.read_bytes()], file


def test_a_space_has_the_files_that_the_hub_asks_for(space: Path) -> None:
    readme = (space / "README.md").read_text()
    assert readme.startswith("---\ntitle: My space\nsdk: gradio\n") and "app_file: app.py" in readme
    assert any(line.startswith("gradio") for line in (space / "requirements.txt").read_text().splitlines())


def test_a_space_starts_and_answers(space: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    moved = space.rename(tmp_path / "elsewhere")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**kept, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": port}
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=moved,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        client = pytest.importorskip("gradio_client").Client
        page = _connect(client, f"http://127.0.0.1:{port}/", process)
        results = page.predict("a red circle", 3, api_name="/search_text")
        assert len(results) == 3
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{results[0]['preview']}", timeout=30) as preview:
            assert preview.headers["Content-Type"] == "image/webp"
    finally:
        process.terminate()
        process.wait(30)
        moved.rename(space)


def _connect(client: type, url: str, process: "subprocess.Popen[str]") -> object:
    for _ in range(240):
        assert process.poll() is None, process.stdout and process.stdout.read()
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1].rstrip("/")))) == 0:
                return client(url, verbose=False)
        try:
            process.wait(0.25)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("the Space does not listen")


def test_a_folder_that_is_not_empty_is_not_changed(space: Path, tiny_bundle: Path, image_folder: Path) -> None:
    before = sorted(space.rglob("*"))
    with pytest.raises(MiniClipError, match="is not an empty folder"):
        main(["--images", str(image_folder), "--bundle", str(tiny_bundle), "--out", str(space)])
    assert sorted(space.rglob("*")) == before
