"""Shared by tests of an index: encoders of the tiny bundle, a few images, and the counts of an update."""

import shutil
from pathlib import Path

import pytest

from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import IndexReport
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


@pytest.fixture
def images(image_folder: Path, tmp_path: Path) -> Path:
    """a.png, b.png and c.png, without captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, path in zip("abc", sorted(image_folder.glob("*-*")), strict=False):
        shutil.copy(path, folder / f"{name}.png")
    return folder


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.kept, report.removed, len(report.skipped)


@pytest.fixture(name="images")
def six_images(image_folder: Path, tmp_path: Path) -> Path:
    """Six of the images, without captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(image_folder.glob("*-*"))[:6]:
        shutil.copy(path, folder)
    return folder


def embeds_by_name(index: Path) -> dict[str, list[float]]:
    opened = ImageIndex.open(index)
    return {path.name: row.tolist() for path, row in zip(opened.paths, opened.image_embeds, strict=True)}
