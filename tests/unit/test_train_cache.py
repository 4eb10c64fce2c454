"""The cache of features: several trainings, a damaged note, and an impossible folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from miniclip.errors import MiniClipError
from miniclip.models.backbones import load_backbone
from miniclip.models.config import Config
from miniclip.models.dual_encoder import VisionTower
from tests.support.cli import REPOSITORY
from tests.support.training import TRANSFORM, config, own_cache
from train.augment import View
from train.feature_cache import image_features
from train.tower_inputs import Images

__all__ = ["config", "own_cache"]  # fixtures

# a pass that stops before some batch, until a line on standard input or for ever
PASS = """
import os, signal, sys
from pathlib import Path
from train.feature_cache import image_features
from miniclip.data.transform import ImageTransform
from miniclip.models.backbones import load_backbone
from miniclip.models.dual_encoder import VisionTower
from train.augment import View
tower, calls = VisionTower(load_backbone(Path(sys.argv[1]), "vision"), "auto"), []
def stop(_, inputs):
    calls.append(1)
    if len(calls) == 1 + int(sys.argv[3]):  # the first is the blank image that tells the shape
        print("in the midst", flush=True)
        if sys.stdin.readline() == "":
            os.kill(os.getpid(), signal.SIGKILL)
tower.register_forward_pre_hook(stop)
paths = sorted(Path(sys.argv[2]).glob("*.*g"))
image_features(tower, View(ImageTransform(64, 64, (0.5,) * 3, (0.5,) * 3)), paths)
"""


def tower_of(config: Config) -> VisionTower:
    return VisionTower(load_backbone(Path(config.model.vision), "vision"), "auto")


def features_of(config: Config, images: Path) -> np.ndarray:
    return image_features(tower_of(config), View(TRANSFORM), sorted(images.glob("*.*g"))).values.copy()


@pytest.mark.e2e
def test_the_second_training_on_a_cache_waits_and_uses_the_first_ones_result(
    config: Config, captioned_folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", PASS, config.model.vision, str(captioned_folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    with subprocess.Popen([*command, "3"], stdin=subprocess.PIPE, **pipes) as first:
        assert first.stdout.readline() == "in the midst\n"
        with subprocess.Popen([*command, "1"], stdin=subprocess.DEVNULL, **pipes) as second:
            said = second.stderr.readline()  # empty if it computed as well and was killed
            _, errors = first.communicate("go on\n")
            assert first.returncode == 0, errors
            second.communicate()
    found = features_of(config, captioned_folder)  # from the cache
    monkeypatch.setenv("MINICLIP_CACHE", str(own_cache / "other"))
    np.testing.assert_array_equal(found, features_of(config, captioned_folder))
    assert said == "waiting for another training run that computes the same features\n"
    assert second.returncode == 0


@pytest.mark.parametrize("note", ["", '{"done": 12', "[]", '{"done": 12, "skipped": 3}'])
def test_a_cache_whose_note_is_damaged_is_computed_again(
    note: str, config: Config, image_folder: Path, own_cache: Path
) -> None:
    expected = features_of(config, image_folder)
    (path,) = own_cache.glob("features/*/progress.json")
    whole = path.read_text()
    path.write_text(note)
    values = path.with_name("features.npy")
    values.write_bytes(values.read_bytes()[:-100] + bytes(100))
    np.testing.assert_array_equal(features_of(config, image_folder), expected)
    assert path.read_text() == whole


def test_an_image_without_memory_or_package_is_retried(config: Config, image_folder: Path, own_cache: Path) -> None:
    expected = features_of(config, image_folder)
    (path,) = own_cache.glob("features/*/progress.json")
    note = json.loads(path.read_text())
    assert note["skipped"] == {}
    reasons = (
        "damaged image (MemoryError)",
        "HEIC images need one more package: pip",
        "damaged image (truncated)",
    )
    note |= {"skipped": dict(zip("135", reasons, strict=True)), "retryable": ["1", "3"]}
    path.write_text(json.dumps(note))
    values = np.load(path.with_name("features.npy"), mmap_mode="r+")
    values[[1, 3, 5]] = 0
    values.flush()
    found = features_of(config, image_folder)
    np.testing.assert_array_equal(np.delete(found, 5, axis=0), np.delete(expected, 5, axis=0))
    assert not found[5].any() and json.loads(path.read_text())["skipped"] == {"5": "damaged image (truncated)"}


def test_an_image_that_one_view_lacks_is_dropped(config: Config, image_folder: Path, own_cache: Path) -> None:
    """Otherwise it would train as a row of zeros."""
    sides = (tower_of(config), 0, TRANSFORM, sorted(image_folder.glob("*.*g")), 2, 0)
    assert Images(*sides).skipped == {}
    notes = sorted(own_cache.glob("features/*/progress.json"))
    assert len(notes) == 2
    for row, path in enumerate(notes):
        note = json.loads(path.read_text())
        path.write_text(json.dumps({**note, "skipped": {row: "damaged image (truncated)"}}))
    assert Images(*sides).skipped.keys() == {0, 1}


def test_a_cache_folder_that_is_a_file_is_one_line(
    config: Config, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "file"))
    with pytest.raises(MiniClipError, match="set MINICLIP_CACHE to a folder with more") as error:
        features_of(config, image_folder)
    assert "\n" not in str(error.value)
