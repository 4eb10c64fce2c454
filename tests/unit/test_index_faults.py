"""What goes wrong around an index: no room, no lock, drives that are away, odd clocks, names and captions.

Nothing is lost by it, and what can be told is told in one line.
"""

import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from miniclip.bundle import Bundle
from miniclip.encoders import OnnxEncoders
from miniclip.index import PictureIndex
from miniclip.update import IndexReport, update_index


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


@pytest.fixture
def pictures(picture_folder: Path, tmp_path: Path) -> Path:
    """a.png, b.png and c.png, without captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, path in zip("abc", sorted(picture_folder.glob("*-*")), strict=False):
        shutil.copy(path, folder / f"{name}.png")
    return folder


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.kept, report.removed, len(report.skipped)


def names(index: Path) -> list[str]:
    return [path.name for path in PictureIndex.open(index).paths]


def columns(count: int, dim: int, first: int = 0) -> dict[str, Any]:
    """Rows of pictures that are nowhere."""
    embeds = np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)
    numbers = range(first, first + count)
    return {
        "path": [f"/p/{number:04}.jpg" for number in numbers],
        "sha256": [number.to_bytes(32, "big") for number in numbers],
        "indexed_at": [datetime(2024, 1, 1)] * count,
        "taken": pa.nulls(count, pa.timestamp("s")),
        "captions": [[]] * count,
        "embedding": pa.FixedSizeListArray.from_arrays(embeds.ravel(), dim),
        **{name: [1] * count for name in ("bytes", "mtime_ns", "width_px", "height_px")},
    }


def test_empty_error_report_is_not_made_anew(encoders: OnnxEncoders, pictures: Path, tmp_path: Path) -> None:
    """Whoever opens the index just while its table is away would be told that it is damaged."""
    update_index(str(pictures), encoders, tmp_path / "index")
    mark = tmp_path / "index/problems.lance/mark"
    mark.touch()
    update_index(str(pictures), encoders, tmp_path / "index")
    assert mark.exists()


def test_picture_of_a_clock_in_another_century_is_indexed(
    encoders: OnnxEncoders, pictures: Path, tmp_path: Path
) -> None:
    moment_ns = 10**19  # in 2286
    os.utime(pictures / "b.png", ns=(moment_ns, moment_ns))
    if os.stat(pictures / "b.png").st_mtime_ns != moment_ns:
        pytest.skip("this file system has no such times")
    assert counts(update_index(str(pictures), encoders, tmp_path / "index")) == (3, 0, 0, 0)
    assert counts(update_index(str(pictures), encoders, tmp_path / "index")) == (0, 3, 0, 0)
