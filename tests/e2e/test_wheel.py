"""The wheel in a new environment: it searches, opens the page, and can be imported."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.support.cli import REPOSITORY
from tests.support.drawing import draw_image

LEFT_OUT = ("__pycache__", ".git", ".venv*", "build", "dist", "*.egg-info", "runs", "node_modules", ".*_cache")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dist/` of a copy of the sources."""
    root = tmp_path_factory.mktemp("source") / "miniclip"
    shutil.copytree(REPOSITORY, root, ignore=shutil.ignore_patterns(*LEFT_OUT))
    done = run("make", "wheel", f"PYTHON={sys.executable}", f"VENV={root.parent}/venv", cwd=root)
    assert done.returncode == 0, done.stderr
    return root / "dist"


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin/` of a fresh virtual environment with the wheel and its page."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    assert run(sys.executable, "-m", "venv", folder).returncode == 0
    (wheel,) = built.glob("*.whl")
    done = run(folder / "bin" / "pip", "install", "--quiet", f"{wheel}[demo]")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in ("red", "green", "blue"):
        draw_image(colour, "circle").save(folder / f"{colour}.png")
    return folder


def run(*command: object, cwd: Path | None = None, cache: Path | None = None) -> "subprocess.CompletedProcess[str]":
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if cache:
        variables["MINICLIP_CACHE"] = str(cache)
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd or Path.home(),
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_archives_have_the_right_files(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "miniclip/py.typed",
        "miniclip/released/miniclip-s/manifest.json",
        "miniclip/released/miniclip-s/onnx/text_model_quantized.onnx",
        "miniclip/configs/setup1.toml",
        "miniclip/train/__main__.py",
        "miniclip/export/benchmark/worker.py",
        "miniclip/demo/static/search.html",
        "miniclip/demo/languages/de.json",
        "miniclip/demo/tabs/search.py",
    ):
        assert name in names
    assert not any(name.startswith(("train/", "demo/", "export/", "tests/", "miniclip/tests")) for name in names)
    with tarfile.open(source) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "README.md", "LICENSE", "CHANGELOG.md", "requirements.lock", "pyproject.toml"} <= packed
    assert {"tests/conftest.py", "docs/api.md", "models/miniclip-s/manifest.json", "demo/app.py"} <= packed
    modules = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "miniclip").rglob("*.py")}
    assert modules <= names, "every module of the checkout is in the wheel"


def test_a_folder_is_searched_and_left_alone(environment: Path, photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = run(environment / "miniclip", "search", "red", cwd=photos, cache=cache)
    assert first.returncode == 0 and first.stdout.split("\t")[1].endswith("red.png"), first.stderr
    assert sorted(path.name for path in photos.iterdir()) == ["blue.png", "green.png", "red.png"]
    again = run(environment / "miniclip", "search", "red", "--json", cwd=photos, cache=cache)
    assert json.loads(again.stdout)["results"][0]["path"].endswith("red.png") and again.stderr.count("index") == 0


def test_five_lines_of_python_run(environment: Path, photos: Path, tmp_path: Path) -> None:
    code = (
        "import miniclip\nmodel = miniclip.load()\nphotos = miniclip.index('.', model)\n"
        "for hit in photos.search('red', top_k=1):\n    print(hit.path.name, miniclip.__file__)\n"
    )
    done = run(environment / "python", "-c", code, cwd=photos, cache=tmp_path / "cache")
    assert done.stdout.startswith("red.png") and str(environment.parent) in done.stdout, done.stderr


def test_the_page_opens(environment: Path, photos: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    page = subprocess.Popen(
        [environment / "miniclip", "demo", ".", "--no-browser", "--port", str(port)],
        cwd=photos,
        env={**variables, "MINICLIP_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert page.stdout
    try:
        seen = []
        for line in page.stdout:  # ends with the page
            seen.append(line)
            if "The search page is at" in line:
                break
        else:
            pytest.fail("".join(seen))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            assert answer.status == 200
        assert sorted(path.name for path in photos.iterdir()) == ["blue.png", "green.png", "red.png"]
    finally:
        page.terminate()
        page.wait(60)


def test_training_names_its_missing_packages(environment: Path) -> None:
    done = run(environment / "miniclip", "train", "--config", "x")
    assert done.returncode == 2 and done.stderr.startswith("error: miniclip train needs torch: ")
    assert done.stderr.endswith('pip install "miniclip[train]"\n')  # the pip of the environment, which is not activated
