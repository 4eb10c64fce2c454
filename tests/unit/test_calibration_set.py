"""Calibration data for int8: chosen from training images, stored in a file, or read from --data."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import export.__main__ as export_command
import miniclip.models.calibration_set
from miniclip.data.captions import read_captions
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.layouts import TOWERS, onnx_name
from miniclip.models.calibration_set import CALIBRATION_FILE, CalibrationSet
from miniclip.models.checkpoint import load_run
from tests.support.cli import run_cli


def test_calibration_groups_captions_of_similar_length_with_their_images(tiny_run: Path) -> None:
    run, calibration = load_run(tiny_run), CalibrationSet.load(tiny_run)
    assert calibration
    by_length = calibration.by_length(run.tokenizer)
    lengths = [len(ids) for ids in run.tokenizer.ids(by_length.captions)]
    assert lengths == sorted(lengths) and len(set(lengths)) > 1

    def pairs(own: CalibrationSet) -> list[tuple[str, int]]:
        return sorted(zip(own.captions, own.image_of_caption.tolist(), strict=True))

    assert pairs(by_length) == pairs(calibration)


@pytest.fixture(scope="module")
def transform() -> ImageTransform:
    return ImageTransform(64, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_calibration_takes_training_images_and_two_captions_each(
    captioned_folder: Path, transform: ImageTransform
) -> None:
    table = read_captions(captioned_folder, seed=0)
    train = table.split("train")
    assert 0 < len(train.image_paths) < len(table.image_paths)
    calibration = CalibrationSet.choose(table, transform)
    assert calibration.captions == train.captions
    np.testing.assert_array_equal(calibration.image_of_caption, train.image_of_caption)
    expected = np.stack([transform.load(path) for path in train.image_paths])
    np.testing.assert_array_equal(calibration.pixel_values(transform), expected)  # as the tower reads them


def test_calibration_of_a_large_split_is_spread_over_all_of_it(
    captioned_folder: Path, transform: ImageTransform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miniclip.models.calibration_set, "IMAGES", 5)
    train = read_captions(captioned_folder, seed=0).split("train")
    calibration = CalibrationSet.choose(train, transform)
    count = len(train.image_paths)
    chosen = [caption for row in (i * (count - 1) // 4 for i in range(5)) for caption in train.captions_of(row)]
    assert calibration.captions == chosen
    assert calibration.images.shape == (5, 64, 64, 3)
    assert calibration.image_of_caption.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_calibration_skips_unreadable_images(
    captioned_folder: Path, transform: ImageTransform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(captioned_folder, tmp_path / "pictures")
    train = read_captions(folder, seed=0).split("train")
    whole = CalibrationSet.choose(train, transform)
    bad = train.image_paths[1]
    bad.write_bytes(bad.read_bytes()[:100])
    rest = CalibrationSet.choose(train, transform)
    assert capsys.readouterr().out.startswith(f"skipping {bad}: ")
    np.testing.assert_array_equal(rest.images, np.delete(whole.images, 1, axis=0))
    assert rest.captions == [*whole.captions[:2], *whole.captions[4:]]
    np.testing.assert_array_equal(rest.image_of_caption, whole.image_of_caption[:-2])
    for path in train.image_paths:
        path.write_bytes(b"")
    with pytest.raises(MiniClipError, match=r"none of \d+ images could be read; the first: .*an empty file"):
        CalibrationSet.choose(train, transform)


def test_calibration_data_is_restored_from_its_file(
    captioned_folder: Path, transform: ImageTransform, tmp_path: Path
) -> None:
    assert CalibrationSet.load(tmp_path) is None
    saved = CalibrationSet.choose(read_captions(captioned_folder, seed=0), transform)
    saved.save(tmp_path / CALIBRATION_FILE)
    loaded = CalibrationSet.load(tmp_path)
    assert loaded and loaded.captions == saved.captions
    for ours, theirs in ((loaded.images, saved.images), (loaded.image_of_caption, saved.image_of_caption)):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"no numbers at all", id="text"),
        pytest.param(lambda whole: whole[: len(whole) // 2], id="cut"),
        pytest.param(lambda whole: whole[:5000] + b"damage" + whole[5006:], id="bits"),
    ],
)
def test_a_damaged_calibration_file_is_one_line_with_a_remedy(
    damage: Callable[[bytes], bytes], tiny_run: Path, tmp_path: Path
) -> None:
    whole = (tiny_run / CALIBRATION_FILE).read_bytes()
    (tmp_path / CALIBRATION_FILE).write_bytes(damage(whole))
    with pytest.raises(MiniClipError, match=r"calibration\.npz: .*; train again, or leave int8 out$") as error:
        CalibrationSet.load(tmp_path)
    assert "\n" not in str(error.value)


def test_images_without_captions_cannot_calibrate(
    image_folder: Path, transform: ImageTransform, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(image_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.csv")))
    table = read_captions(bare)
    assert table.image_paths and not table.captions
    with pytest.raises(MiniClipError, match="have no captions, and int8 is calibrated on both; name other data"):
        CalibrationSet.choose(table, transform)


@pytest.fixture
def shared_run(tiny_run: Path, tmp_path: Path) -> Path:
    """The run as on the hub, without calibration data."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns(CALIBRATION_FILE)))


def test_int8_of_a_run_without_calibration_data_asks_for_data(shared_run: Path, tmp_path: Path) -> None:
    done = run_cli("export", "--run", shared_run, "--out", tmp_path / "bundle")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"{shared_run} has no calibration.npz" in done.stderr
    assert "name captions with --data, or leave int8 out with --precision fp32 fp16" in done.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("precisions", "with_data"), [(["int8"], True), (["fp32", "fp16"], False)])
def test_a_run_without_calibration_data_exports_int8_from_data(
    precisions: list[str],
    with_data: bool,
    shared_run: Path,
    tiny_bundle: Path,
    captioned_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """int8 uses the training images of `--data`; fp32 and fp16 need none."""
    out = tmp_path / "bundle"
    flags: list[object] = ["--run", shared_run, "--out", out, "--precision", *precisions]
    flags += ["--data", captioned_folder] if with_data else []
    monkeypatch.setattr(sys, "argv", ["export", *map(str, flags)])
    assert export_command.main() == 0
    assert {path.name for path in out.glob("onnx/*")} == {
        Path(onnx_name(tower, precision)).name for tower in TOWERS for precision in precisions
    }
    bundle = Bundle.open(out)
    assert bundle.fingerprint == Bundle.open(tiny_bundle).fingerprint
    for tower in TOWERS:
        for precision in precisions:
            assert (
                bundle.model_path(tower, precision).read_bytes()
                == (tiny_bundle / onnx_name(tower, precision)).read_bytes()
            ), (tower, precision)
