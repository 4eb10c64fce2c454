"""Training on the device of `--device`: no tensor stays on another device, and a run continues on any device."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train.decoded
import train.feature_cache
import train.trainer
from miniclip.cli.main import main as miniclip_main
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_training_state
from miniclip.models.config import Config
from miniclip.models.device import Device, choose_device
from tests.support.accelerator import AWAY, Accelerator, accelerator, apple_gpu, is_away
from tests.support.training import TRANSFORM, config, no_bfloat16, own_cache, records_of
from train.__main__ import main
from train.augment import View
from train.decoded import decode, resized
from train.interpolate import main as interpolate_main
from train.validation import validate

__all__ = ["accelerator", "apple_gpu", "config", "no_bfloat16", "own_cache"]  # fixtures
TOWERS = ("--train.vision_learning_rate", "1e-3", "--train.text_learning_rate", "1e-3")
RECIPES = {
    "heads": ("--train.ema", "0.9", "--train.mixup", "1", "--train.feature_noise", "0.1", "--train.views", "2"),
    "everything, in parts": ("--train.setup", "2", "--train.micro_batch", "12", "--train.feature_noise", "0.1"),
    "everything, in views": ("--train.setup", "2", "--train.views", "2", "--train.captions_per_image", "1"),
    "last blocks": ("--train.setup", "3", "--train.loss", "triplet", "--train.ema", "0.9"),
    "last vision block, all of the text": ("--train.vision_blocks", "1", "--train.text_blocks", "99"),
}


@pytest.fixture
def train_on(
    monkeypatch: pytest.MonkeyPatch, tiny_config: Path, captioned_folder: Path, own_cache: Path, no_bfloat16: None
) -> object:
    """`python -m train --device DEVICE`, in this process."""

    def run(device: str, out: Path, *flags: str) -> None:
        line = ["--config", tiny_config, "--data", captioned_folder, "--out", out, "--device", device, *TOWERS, *flags]
        call(monkeypatch, main, line)

    return run


def call(monkeypatch: pytest.MonkeyPatch, command: object, line: list[object]) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, line)])
    try:
        status = command()  # type: ignore[operator]
    except SystemExit as end:
        status = end.code
    assert not status


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_all_tensors_of_a_training_are_on_its_device(
    recipe: tuple[str, ...], train_on, accelerator: Accelerator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_on("auto", tmp_path / "run", "--train.epochs", "2", *recipe)
    assert "training on cuda:0: a card of these tests, 1 GiB, bfloat16 autocast" in capsys.readouterr().out
    assert accelerator.moved > 100
    assert len(records_of(tmp_path / "run")) == 2
    state = load_training_state(tmp_path / "run")
    assert state is not None and not any(map(is_away, state["trained"].values()))


@pytest.mark.parametrize(
    ("device", "recipe"), [("auto", RECIPES["heads"]), ("mps", RECIPES["everything, in views"])], ids=["auto", "mps"]
)
def test_all_tensors_of_a_training_are_on_an_apple_gpu(
    device: str,
    recipe: tuple[str, ...],
    train_on,
    apple_gpu: Accelerator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_on(device, tmp_path / "run", "--train.epochs", "2", *recipe)
    assert "training on mps: Apple GPU, 1 GiB, bfloat16 autocast" in capsys.readouterr().out
    assert apple_gpu.moved > 100
    assert len(records_of(tmp_path / "run")) == 2


def test_an_apple_gpu_on_an_older_macos_computes_in_float32(
    apple_gpu: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: False)
    assert choose_device("mps") == Device(torch.device("mps"), torch.float32)


@pytest.mark.parametrize("recipe", [RECIPES[name] for name in RECIPES if "views" not in name])
@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")], ids=str)
def test_a_run_that_changes_its_device_gives_the_same_result(
    recipe: tuple[str, ...],
    devices: tuple[str, str],
    train_on,
    accelerator: Accelerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train.feature_cache, "GPU_BATCH", train.feature_cache.IMAGE_BATCH)
    train_on("cpu", tmp_path / "one", "--train.epochs", "3", *recipe)

    count = 0

    def fail(*arguments: object) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return validate(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(train.trainer, "validate", fail)
        with pytest.raises(KeyboardInterrupt):
            train_on(devices[0], tmp_path / "two", "--train.epochs", "3", *recipe)
    moved = accelerator.moved
    train_on(devices[1], tmp_path / "two", "--resume", "--train.epochs", "3", *recipe)
    assert (accelerator.moved > moved) == (devices[1] == "cuda")
    ours, theirs = tmp_path / "one", tmp_path / "two"
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert (ours / "config.json").read_bytes() == (theirs / "config.json").read_bytes()
    for our_record, their_record in zip(records_of(ours), records_of(theirs), strict=True):
        assert {**our_record, "seconds": 0} == {**their_record, "seconds": 0}


@pytest.mark.parametrize("host_bytes", [2**40, 0], ids=["in main memory", "on the disk"])
def test_features_that_do_not_fit_on_the_device_are_moved_by_batch(
    host_bytes: int, train_on, accelerator: Accelerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 2**30))
    monkeypatch.setattr(train.decoded, "_host_bytes", lambda: host_bytes)
    for name in ("heads", "everything, in views", "last blocks"):
        train_on("cuda", tmp_path / name, "--train.epochs", "2", *RECIPES[name])
        assert len(records_of(tmp_path / name)) == 2


def test_mixes_and_evaluation_compute_on_the_device(
    tiny_run: Path,
    captioned_folder: Path,
    accelerator: Accelerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = ["--before", tiny_run, "--after", tiny_run, "--data", captioned_folder, "--steps", 2]
    call(monkeypatch, interpolate_main, [*both, "--out", tmp_path / "mixed", "--device", "cuda"])
    assert accelerator.moved > 100 and "embedding on cuda:0" in capsys.readouterr().out
    mixed, own = (folder / "model.safetensors" for folder in (tmp_path / "mixed", tiny_run))
    assert mixed.read_bytes() == own.read_bytes()
    moved = accelerator.moved
    line = ["evaluate", "--run", tiny_run, "--data", captioned_folder, "--split", "val", "--device"]
    found = []
    for device in ("cpu", "cuda"):
        call(monkeypatch, miniclip_main, [*line, device, "--json", tmp_path / f"{device}.json"])
        found.append((tmp_path / f"{device}.json").read_text())
    assert found[0] == found[1] and accelerator.moved > moved


def test_the_stand_in_refuses_tensors_of_two_devices(accelerator: Accelerator) -> None:
    there = torch.ones(2, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(2)
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2)[torch.zeros(1, dtype=torch.int64).to(AWAY)]
    with pytest.raises(TypeError, match="cuda:0"):
        there.numpy()
    assert (there + 1).cpu().numpy().tolist() == [2, 2]


def test_float16_scales_gradients_and_its_scale_survives_a_stop(
    train_on, accelerator: Accelerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert choose_device("auto") == Device(AWAY, torch.float16, True)
    train_on("cuda", tmp_path / "run", "--train.epochs", "2")
    state = load_training_state(tmp_path / "run")
    assert state is not None and state["scaler"]["scale"] >= 1024
    train_on("cpu", tmp_path / "other", "--train.epochs", "2")
    ours, theirs = (records_of(tmp_path / name)[-1] for name in ("run", "other"))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpu", "--device must be one of auto | cpu | cuda | cuda:N | mps, got gpu"),
        ("cpu:1", "--device must be one of"),
        ("cuda:x", "--device must be one of"),
        ("cuda", "--device cuda:0: this PyTorch finds no CUDA device; use --device auto"),
        ("mps", "--device mps: this PyTorch finds no Apple GPU; use --device auto"),
    ],
)
def test_a_missing_device_is_one_line(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(MiniClipError) as error:
        choose_device(name)
    assert str(error.value).startswith(reason)


def test_each_process_uses_its_own_card(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert str(choose_device("cuda").torch_device) == "cuda:2"
    assert str(choose_device("cuda:1").torch_device) == "cuda:1"
    with pytest.raises(MiniClipError, match="finds 4 CUDA devices, numbered from 0"):
        choose_device("cuda:4")


@pytest.mark.parametrize("size", [(30, 40), (64, 64), (150, 90)])
def test_resizing_on_the_device_equals_pillow(size: tuple[int, int]) -> None:
    height, width = size
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, 9, 12, 3), dtype=np.uint8)
    images = [Image.fromarray(own).resize((100, 80), Image.Resampling.BILINEAR) for own in pixels]  # not only noise
    boxes = np.asarray([[0.0, 0.0, 1.0, 1.0], [0.1, 0.25, 0.85, 0.9]], dtype=np.float32)
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2).copy())
    found = resized(stacked, torch.from_numpy(boxes), size, torch.tensor([False, True]))
    for image, box, own, mirrored in zip(images, boxes, found, (False, True), strict=True):
        edges = tuple(float(share * edge) for share, edge in zip(box, (100, 80, 100, 80), strict=True))
        expected = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=edges))
        expected = expected[:, ::-1] if mirrored else expected
        difference = np.abs(own.numpy().transpose(1, 2, 0) - expected)
        assert difference.max() <= 2 and difference.mean() < 0.3


@pytest.mark.parametrize("shortest", [None, 72])
def test_decoded_images_equal_those_from_the_disk(
    shortest: int | None, accelerator: Accelerator, image_folder: Path, tmp_path: Path
) -> None:
    paths = sorted(image_folder.glob("*.png"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    transform = ImageTransform(64, 64, TRANSFORM.mean, TRANSFORM.std, resize_shortest_px=shortest)
    decoded = decode([*paths, tmp_path / "broken.png"], transform, 2, 7, choose_device("cuda"))
    assert decoded is not None and list(decoded.skipped) == [len(paths)]
    rows = np.asarray([2, 0])
    for view, most in ((0, 0.0), (1, 0.05), (2, 0.05)):
        found = decoded.pixel_values(rows, view)
        assert found.device == AWAY
        expected = np.stack([View(transform, view, 7).load(paths[row]) for row in rows])
        assert np.abs(found.cpu().numpy() - expected).mean() <= most
    assert (
        np.abs(decoded.pixel_values(rows, 1).cpu().numpy() - decoded.pixel_values(rows, 2).cpu().numpy()).mean() > 0.1
    )


def test_a_config_has_no_device(config: Config) -> None:
    assert "device" not in str(config.to_dict())
