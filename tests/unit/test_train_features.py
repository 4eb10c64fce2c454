"""Frozen parts are computed once: features, or the input of the first trained block."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import train.feature_cache
from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from miniclip.inference.tokenizer import Tokenizer
from miniclip.models.backbones import load_backbone
from miniclip.models.config import Config
from miniclip.models.dual_encoder import TextTower, VisionTower
from tests.support.architectures import VISION, in_tiers, randomise
from tests.support.cli import REPOSITORY
from tests.support.training import TRANSFORM, config, new_model, no_bfloat16, own_cache, tokenizer_of
from train.augment import View
from train.blocks import blocks_of
from train.data import load_data
from train.feature_cache import image_features, text_features
from train.tokens import Tokens
from train.tower_inputs import Images, Texts

__all__ = ["config", "no_bfloat16", "own_cache"]  # fixtures
PLAIN = View(TRANSFORM)
CAPTIONS = ["a red circle", "photo of the blue square", "a dog", "two big yellow triangle and a small cat on white"]


def caches_in(folder: Path) -> int:
    return len(list(folder.glob("features/*/progress.json")))


def test_features_are_computed_once(config: Config, image_folder: Path, own_cache: Path) -> None:
    model, tokens = new_model(config), Tokens(tokenizer_of(config), CAPTIONS)
    paths = sorted(image_folder.glob("*.*g"))
    images, words = image_features(model.vision, PLAIN, paths), text_features(model.text, tokens)
    with torch.inference_mode():
        expected = model.vision(torch.from_numpy(np.stack([TRANSFORM.load(path) for path in paths]))).numpy()
    assert np.abs(images.values - expected).max() < 0.1 * np.abs(expected).max()  # computed in bfloat16
    assert words.values.shape == (4, 32)

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    handles = [model.text.register_forward_pre_hook(refuse), blocks_of(model.vision)[1].register_forward_hook(refuse)]
    np.testing.assert_array_equal(text_features(model.text, tokens).values, words.values)
    handles.pop().remove()
    seen = []  # one blank image for the shape; no image is computed again
    model.vision.register_forward_pre_hook(lambda _, inputs: seen.append((len(inputs[0]), bool(inputs[0].any()))))
    np.testing.assert_array_equal(image_features(model.vision, PLAIN, paths).values, images.values)
    assert all(rows == 1 and not drawn for rows, drawn in seen)


def test_any_changed_input_leads_to_another_cache(
    config: Config, captioned_folder: Path, own_cache: Path, tmp_path: Path
) -> None:
    model, tokenizer = new_model(config), tokenizer_of(config)
    path = tmp_path / "picture.png"
    path.write_bytes(sorted(captioned_folder.glob("*.png"))[0].read_bytes())
    texts = ["a red circle on white"]

    def caches() -> int:
        image_features(model.vision, PLAIN, [path])
        text_features(model.text, Tokens(tokenizer, texts))
        return caches_in(own_cache)

    assert (caches(), caches()) == (2, 2)
    with torch.no_grad():
        next(model.vision.parameters()).add_(1e-3)
    assert caches() == 3
    next(module for module in model.vision.modules() if isinstance(module, torch.nn.BatchNorm2d)).running_mean.add_(1)
    assert caches() == 4
    image_features(model.vision, View(replace(TRANSFORM, mean=(0.4, 0.5, 0.5))), [path])
    assert caches() == 5
    stat = path.stat()
    path.write_bytes(sorted(captioned_folder.glob("*.png"))[1].read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert caches() == 6
    other = json.loads((Path(config.model.text) / "tokenizer.json").read_text())
    words = other["model"]["vocab"]
    words["red"], words["blue"] = words["blue"], words["red"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    text_features(model.text, Tokens(Tokenizer.from_folder(tmp_path), texts))
    assert caches() == 7
    image_features(model.vision, View(TRANSFORM, number=1), [path])
    image_features(model.vision, View(TRANSFORM, number=2), [path])
    image_features(model.vision, View(TRANSFORM, number=2, seed=1), [path])
    assert caches() == 10


def test_a_folder_that_was_copied_or_touched_finds_its_cache(
    config: Config, captioned_folder: Path, own_cache: Path, tmp_path: Path
) -> None:
    tower, paths = new_model(config).vision, sorted(captioned_folder.glob("*.png"))
    before = image_features(tower, PLAIN, paths).values
    copies = [Path(shutil.copyfile(path, tmp_path / f"{number}.png")) for number, path in enumerate(paths)]
    for copy in copies:
        os.utime(copy, ns=(1, 1))
    np.testing.assert_array_equal(image_features(tower, PLAIN, copies).values, before)
    assert caches_in(own_cache) == 1


def test_a_failed_pass_continues_from_its_note(
    config: Config, captioned_folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.feature_cache, "SAVE_EVERY", 2)
    paths = sorted(captioned_folder.glob("*.*g"))
    tower = new_model(config).vision
    calls = {"count": 0, "stop": 4}

    def count(_: object, inputs: tuple[torch.Tensor]) -> None:
        calls["count"] += bool(inputs[0].any())  # not the blank image for the shape
        if calls["count"] == calls["stop"]:
            raise RuntimeError("the power went")

    tower.register_forward_pre_hook(count)
    with pytest.raises(RuntimeError, match="the power went"):
        image_features(tower, PLAIN, paths)
    calls |= {"count": 0, "stop": -1}
    continued = image_features(tower, PLAIN, paths).values.copy()
    batches = math.ceil(len(paths) / train.feature_cache.IMAGE_BATCH)
    assert calls["count"] == batches - 2  # two batches had been noted, the third was lost
    monkeypatch.setenv("MINICLIP_CACHE", str(own_cache / "other"))
    np.testing.assert_array_equal(continued, image_features(tower, PLAIN, paths).values)


KILLED_PASS = """
import os, signal, sys
from pathlib import Path
import train.feature_cache as features
from miniclip.data.transform import ImageTransform
from miniclip.models.backbones import load_backbone
from miniclip.models.dual_encoder import VisionTower
from train.augment import View
features.SAVE_EVERY = 1
tower, calls = VisionTower(load_backbone(Path(sys.argv[1]), "vision"), "auto"), []
def kill(_, inputs):
    if len(inputs[0]) > 1 and inputs[0].any():  # the cut is found and checked on a single image
        calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
tower.register_forward_pre_hook(kill)
paths = sorted(Path(sys.argv[2]).glob("*.*g"))
features.image_features(tower, View(ImageTransform(64, 64, (0.5,) * 3, (0.5,) * 3)), paths, int(sys.argv[3]))
"""


@pytest.mark.e2e
@pytest.mark.parametrize("trained_blocks", [0, 2])
def test_a_killed_pass_continues(
    trained_blocks: int, config: Config, captioned_folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KILLED_PASS, config.model.vision, str(captioned_folder), str(trained_blocks)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    paths = sorted(captioned_folder.glob("*.*g"))
    tower = VisionTower(load_backbone(Path(config.model.vision), "vision"), "auto")
    calls: list[bool] = []
    # the cut is found and checked on a single image
    tower.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0]) > 1 and bool(inputs[0].any())))
    continued = image_features(tower, PLAIN, paths, trained_blocks).values.copy()
    assert sum(calls) == math.ceil(len(paths) / train.feature_cache.IMAGE_BATCH) - 3
    monkeypatch.setenv("MINICLIP_CACHE", str(own_cache / "other"))
    np.testing.assert_array_equal(continued, image_features(tower, PLAIN, paths, trained_blocks).values)


def test_an_unreadable_image_is_named_and_dropped(
    config: Config, image_folder: Path, own_cache: Path, tmp_path: Path
) -> None:
    for path in image_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    training = read_captions(tmp_path, seed=config.data.seed).split("train").image_paths
    good = sorted(path.name for path in training if path.suffix == ".jpg")
    (tmp_path / good[0]).write_bytes(b"no image")
    (tmp_path / good[1]).write_bytes((tmp_path / good[1]).read_bytes()[:300])
    paths = sorted(path for path in tmp_path.iterdir() if path.suffix in (".jpg", ".png"))
    model, tokenizer = new_model(config), tokenizer_of(config)
    found = image_features(model.vision, PLAIN, paths)
    assert {paths[row].name for row in found.skipped} == set(good[:2])
    assert [reason.partition(" ")[0] for reason in found.skipped.values()] == ["not", "damaged"]
    readable = [row for row in range(len(paths)) if row not in found.skipped]
    alone = image_features(model.vision, PLAIN, [paths[row] for row in readable])
    np.testing.assert_allclose(found.values[readable], alone.values, rtol=0.02, atol=1e-9)
    assert image_features(model.vision, PLAIN, paths).skipped == found.skipped  # and again from the cache

    for setup in (1, 2, 3):  # cached: features, nothing, the input of a block
        chosen = replace(config, train=replace(config.train, setup=setup))
        with pytest.raises(MiniClipError, match="--allow-missing"):
            load_data([str(tmp_path)], chosen, model, TRANSFORM, tokenizer, allow_missing=False)
        kept = load_data([str(tmp_path)], chosen, model, TRANSFORM, tokenizer, allow_missing=True)
        names = [path.name for path in kept.table.image_paths]
        assert set(names).isdisjoint(good[:2])
        assert {skipped.name for skipped in kept.table.skipped} <= set(good[:2])  # the test split is not read
        assert kept.table.skipped
        rows = [kept.image_rows("train"), kept.image_rows("val")]
        assert sorted(np.concatenate(rows)) == list(range(len(names)))
        assert [len(kept.text_rows(split)) for split in ("train", "val")] == [2 * len(part) for part in rows]
        with torch.no_grad():  # the remaining images keep their rows
            kept.images.train(False)
            features = kept.images.features(np.arange(len(names))).numpy()
        own = np.stack([found.values[[path.name for path in paths].index(name)] for name in names])
        assert np.abs(features - own).max() < 0.1 * np.abs(own).max()


@pytest.mark.parametrize("name", in_tiers(["efficientnet-lite", "vit", "resnet"]))
@pytest.mark.parametrize("trained_blocks", [1, 2])
def test_cached_block_inputs_give_the_features_of_the_vision_tower(
    name: str, trained_blocks: int, image_folder: Path, own_cache: Path, no_bfloat16: None
) -> None:
    tower = VisionTower(randomise(VISION[name].make()), "auto").eval()
    paths = sorted(image_folder.glob("*.*g"))
    images = Images(tower, trained_blocks, TRANSFORM, paths, views=1, seed=0)
    cached = image_features(tower, PLAIN, paths, trained_blocks).values
    assert (cached.dtype, cached.ndim, len(cached)) == (np.float16, 3 if name == "vit" else 4, len(paths))
    assert caches_in(own_cache) == 1  # made by Images
    rows = np.asarray([7, 0, 3])
    with torch.no_grad():
        expected = tower(torch.from_numpy(np.stack([TRANSFORM.load(paths[row]) for row in rows])))
        features = images.features(rows)
    assert (features - expected).abs().max() < 5e-3 * expected.abs().max()  # half precision
    assert (expected[0] - expected[1]).abs().max() > 0.05 * expected.abs().max()  # otherwise any row would pass


@pytest.mark.parametrize("trained_blocks", [1, 2])
def test_cached_block_inputs_give_the_features_of_the_text_tower(
    trained_blocks: int, config: Config, own_cache: Path, no_bfloat16: None
) -> None:
    tower = TextTower(load_backbone(Path(config.model.text), "text"), "auto").eval()
    tokens = Tokens(tokenizer_of(config), CAPTIONS)
    texts = Texts(tower, trained_blocks, tokens)
    cached = text_features(tower, tokens, trained_blocks).values
    assert cached.shape == (sum(tokens.lengths), 32) and len(set(tokens.lengths)) == 4  # without padding
    with torch.no_grad():
        for rows in ([3, 0, 2], [1], [2, 1, 0, 3]):
            expected = tower(*tokens.padded(np.asarray(rows)))
            difference = (texts.features(np.asarray(rows)) - expected).abs().max()
            assert difference < 5e-3 * expected.abs().max()


def test_cached_blocks_in_bfloat16_are_close_to_the_whole_tower(
    config: Config, image_folder: Path, own_cache: Path
) -> None:
    model, paths = new_model(config), sorted(image_folder.glob("*.*g"))
    rows = np.arange(len(paths))
    with torch.no_grad():
        whole = Images(model.vision, 99, TRANSFORM, paths, 1, 0).features(rows)
        cached = Images(model.vision, 2, TRANSFORM, paths, 1, 0).features(rows)
    assert (whole - cached).abs().max() < 0.1 * whole.abs().max()


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_only_weights_below_the_split_change_the_cache(
    kind: str, config: Config, image_folder: Path, own_cache: Path
) -> None:
    model, tokens = new_model(config), Tokens(tokenizer_of(config), CAPTIONS)
    paths = sorted(image_folder.glob("*.*g"))[:2]

    def caches() -> int:
        if kind == "vision":
            image_features(model.vision, PLAIN, paths, trained_blocks=1)
        else:
            text_features(model.text, tokens, trained_blocks=1)
        return caches_in(own_cache)

    blocks = blocks_of(model.vision if kind == "vision" else model.text)
    assert caches() == 1
    with torch.no_grad():
        next(blocks[-1].parameters()).add_(0.1)
        assert caches() == 1
        next(blocks[-2].parameters()).add_(0.1)
        assert caches() == 2
