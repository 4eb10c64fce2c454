"""Frozen parts of towers: onnxruntime gives the values of PyTorch, and PyTorch is used if it fails."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import train.frozen_tower
from miniclip.models.config import Config
from miniclip.models.device import Device
from miniclip.models.dual_encoder import VisionTower
from tests.support.training import TRANSFORM, config, new_model, own_cache, tokenizer_of
from train.augment import View
from train.feature_cache import image_features
from train.frozen_tower import MAX_DIFFERENCE, FrozenTower, weights_hash
from train.tokens import Tokens

__all__ = ["config", "own_cache"]  # fixtures
CPU = Device(torch.device("cpu"), torch.float32)
CAPTIONS = ["a red circle", "photo of the blue square", "a dog", "two big yellow triangle and a small cat on white"]


@pytest.fixture
def pixel_values(image_folder: Path) -> np.ndarray:
    return np.stack([TRANSFORM.load(path) for path in sorted(image_folder.glob("*.*g"))])


@pytest.fixture(scope="module")
def graphs() -> dict[str, bytes]:
    """Exported graphs by the weights of their tower, because an export takes seconds."""
    return {}


@pytest.fixture
def long_pass(graphs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Every pass is long enough for an export, and PyTorch takes this many times as long as onnxruntime."""

    export = train.frozen_tower._export

    def export_once(tower: VisionTower, trained_blocks: int, inputs: Sequence[np.ndarray]) -> bytes:
        weights = weights_hash(tower)
        if weights not in graphs:
            graphs[weights] = export(tower, trained_blocks, inputs)
        return graphs[weights]

    def make(ratio: float = 2.0) -> None:
        seconds = {"in_torch": ratio, "in_onnxruntime": 1.0}
        monkeypatch.setattr(train.frozen_tower, "_export", export_once)
        monkeypatch.setattr(train.frozen_tower, "MIN_PASS_S", 0.0)
        monkeypatch.setattr(train.frozen_tower, "_seconds", lambda compute, _: seconds[compute.__name__])

    return make


def fail(*_: object) -> bytes:
    raise RuntimeError("no such operator")


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= MAX_DIFFERENCE * np.abs(expected).max()


@pytest.mark.parametrize("trained_blocks", [0, 1])
def test_onnxruntime_computes_the_values_of_pytorch(
    trained_blocks: int, config: Config, own_cache: Path, pixel_values: np.ndarray
) -> None:
    model = new_model(config)
    tokens = [tensor.numpy() for tensor in Tokens(tokenizer_of(config), CAPTIONS).padded(np.arange(4))]
    for tower, inputs in ((model.vision, [pixel_values]), (model.text, tokens)):
        frozen = FrozenTower(tower, trained_blocks, CPU)
        frozen.open_session(*inputs)
        for rows in (slice(None), slice(0, 1), slice(1, 4)):
            batch = [values[rows] for values in inputs]
            assert_same(frozen(*batch), frozen.in_torch(*batch, exact=True))


def test_the_faster_engine_is_chosen_once_for_all_passes(
    config: Config,
    own_cache: Path,
    image_folder: Path,
    long_pass: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tower, paths = new_model(config).vision, sorted(image_folder.glob("*.*g"))
    long_pass(ratio=3.0)
    found = image_features(tower, View(TRANSFORM), paths, device=CPU).values
    assert "features of images: onnxruntime, 3.0 times as fast here as PyTorch" in capsys.readouterr().out
    expected = FrozenTower(tower, 0, CPU).in_torch(np.stack([TRANSFORM.load(path) for path in paths]))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())  # kept in float16

    monkeypatch.setattr(train.frozen_tower, "_export", fail)
    in_torch = []
    monkeypatch.setattr(
        FrozenTower, "in_torch", lambda _, *inputs: in_torch.append(inputs) or np.zeros((1, found.shape[1]))
    )
    image_features(tower, View(TRANSFORM, number=1), paths, device=CPU)
    assert len(in_torch) == 1 and len(in_torch[0][0]) == 1  # the blank image for the shape
    assert capsys.readouterr().out == ""


def test_pytorch_is_kept_if_it_is_faster(
    config: Config, own_cache: Path, long_pass: Callable[..., None], pixel_values: np.ndarray, capsys
) -> None:
    tower = new_model(config).vision
    long_pass(ratio=0.5)
    frozen = FrozenTower(tower, 0, CPU)
    np.testing.assert_array_equal(frozen.begin(1, pixel_values), frozen.in_torch(pixel_values))
    assert "features of images: PyTorch, 2.0 times as fast here as onnxruntime" in capsys.readouterr().out
    FrozenTower(tower, 0, CPU).begin(1, pixel_values)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("fault", ["no export", "other values"])
def test_a_tower_that_fails_in_onnxruntime_stays_in_pytorch(
    fault: str,
    config: Config,
    own_cache: Path,
    long_pass: Callable[..., None],
    pixel_values: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tower = new_model(config).vision
    long_pass()
    export = train.frozen_tower._export

    def export_another(*arguments: object) -> bytes:
        other = copy.deepcopy(tower)
        with torch.no_grad():
            next(other.parameters()).mul_(1.1)
        return export(other, 0, arguments[2])  # type: ignore[arg-type]

    monkeypatch.setattr(train.frozen_tower, "_export", fail if fault == "no export" else export_another)
    frozen = FrozenTower(tower, 0, CPU)
    np.testing.assert_array_equal(frozen.begin(1, pixel_values), frozen.in_torch(pixel_values))
    said = capsys.readouterr().out
    assert said.startswith("features of images: PyTorch, because the tower cannot run in onnxruntime (")
    assert ("no such operator" if fault == "no export" else "its values differ by") in said and said.count("\n") == 1


def test_a_short_pass_exports_nothing(config: Config, own_cache: Path, image_folder: Path) -> None:
    image_features(new_model(config).vision, View(TRANSFORM), sorted(image_folder.glob("*.*g")))
    assert not (own_cache / "towers").exists()


def test_a_damaged_graph_is_exported_again(
    config: Config, own_cache: Path, long_pass: Callable[..., None], pixel_values: np.ndarray
) -> None:
    tower = new_model(config).vision
    long_pass()
    before = FrozenTower(tower, 0, CPU).begin(1, pixel_values)
    (graph,) = own_cache.glob("towers/*.onnx")
    graph.write_bytes(graph.read_bytes()[:1000])
    np.testing.assert_array_equal(FrozenTower(tower, 0, CPU).begin(1, pixel_values), before)
    assert len(graph.read_bytes()) > 1000
