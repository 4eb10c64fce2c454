"""The same seed gives the same bytes: the split, training on a CPU, an export, the order of an index.

`tests/unit/test_export.py` has the export in two processes, `tests/contract/test_backbones.py` every graph.
"""

import hashlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from miniclip.data.captions import read_captions
from miniclip.data.splits import seeded_splits
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.cli import REPOSITORY, run_module

RUN_FILES = ("model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json", "calibration.npz")


def test_the_split_of_a_seed_never_changes() -> None:
    """A stored result: another release, system or order of files must not move an image to another split."""
    names = [f"{number}.jpg" for number in range(1000)]
    splits = seeded_splits(names, seed=7)
    assert hashlib.sha256(" ".join(splits).encode()).hexdigest() == SPLIT_OF_SEED_7
    shuffled = random.Random(1).sample(names, len(names))
    assert dict(zip(shuffled, seeded_splits(shuffled, seed=7), strict=True)) == dict(zip(names, splits, strict=True))
    assert seeded_splits(names, seed=8) != splits


SPLIT_OF_SEED_7 = "7dc972fc5629e05281f97cb82fa62e147b234a30fc703d62fc3aede5e6e6e57b"


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_split_does_not_depend_on_the_process(hash_seed: str, captioned_folder: Path) -> None:
    code = "import sys; from miniclip.data.captions import read_captions; print(*read_captions(sys.argv[1], 3).splits)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(captioned_folder)],
        cwd=REPOSITORY, env={"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": hash_seed},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == read_captions(captioned_folder, 3).splits


@pytest.mark.e2e
def test_training_twice_on_a_cpu_gives_the_same_bytes(
    tiny_run: Path, tiny_config: Path, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))  # its features are computed again
    command = ("train", "--config", tiny_config, "--data", captioned_folder, "--out", tmp_path / "again")
    done = run_module(*command)
    assert done.returncode == 0, done.stderr
    for name in RUN_FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tiny_run / name).read_bytes(), name
    done = run_module(*command[:-1], tmp_path / "other", "--train.seed", 1)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other" / RUN_FILES[0]).read_bytes() != (tiny_run / RUN_FILES[0]).read_bytes()


def test_an_index_does_not_depend_on_the_order_of_updates(
    tiny_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    """All images at once on one thread, or one by one on two: the same rows and bytes."""
    images = tmp_path / "pictures"
    images.mkdir()
    alone = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)
    two = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=2)
    sources = sorted(image_folder.glob("*-*"))
    for source in random.Random(0).sample(sources, len(sources)):
        shutil.copy(source, images)
        update_index(str(images), two, tmp_path / "grown")
    update_index(str(images), alone, tmp_path / "whole")
    grown, whole = ImageIndex.open(tmp_path / "grown"), ImageIndex.open(tmp_path / "whole")
    assert grown.paths == whole.paths == sorted(images.resolve().iterdir())
    assert np.array_equal(grown.image_embeds, whole.image_embeds)
    np.testing.assert_array_equal(grown.sha256, whole.sha256)
