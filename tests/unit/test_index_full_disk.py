"""A full disk ends an index with one line and keeps the last commit."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import miniclip.index.store
import miniclip.index.watch
import miniclip.search.approximate
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.scan_result import Problem
from miniclip.index.settings import Settings
from miniclip.index.store import Writer, open_writer, read_problems
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import encoders, images

__all__ = ["encoders", "images"]  # fixtures


def columns(count: int, dim: int, first: int = 0) -> dict[str, Any]:
    """Rows of images that do not exist."""
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


def test_without_problems_there_is_no_commit(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    """Each commit leaves a file for a week."""
    update_index(str(images), encoders, tmp_path / "index")
    assert len(list((tmp_path / "index/problems.lance/_versions").glob("*.manifest"))) == 1


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A limit of the system for the size of files; a write beyond it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITES: dict[str, Callable[[Writer], object]] = {
    "put": lambda writer: writer.put(columns(200, 32), replace=False),
    "put again": lambda writer: writer.put(columns(200, 32), replace=True),
    "remove": lambda writer: writer.remove(["/p/0001.jpg"]),
    "put problems": lambda writer: writer.put_problems([Problem("/p/x.jpg", "damaged")]),
    "remove problems": lambda writer: writer.remove_problems(["/p/y.jpg"]),
    "tidy": lambda writer: writer.tidy(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_commit_on_a_full_disk_is_one_line_and_keeps_the_last_one(
    write: Callable[[Writer], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miniclip.index.store, "MAX_FRAGMENTS", 1)
    with open_writer(tmp_path / "index", Settings("0" * 64, tmp_path, "x"), 32) as writer:
        for part in (columns(200, 32), columns(9, 32, 200)):
            writer.put(part, replace=False)
        writer.put_problems([Problem("/p/y.jpg", "damaged")])
        with (
            largest_file(64),
            pytest.raises(MiniClipError, match=r"^cannot write .*index: File too large; free some space") as failed,
        ):
            write(writer)
    assert "\n" not in str(failed.value)
    assert len(ImageIndex.open(tmp_path / "index")) == 209
    assert [problem.path for problem in read_problems(tmp_path / "index")] == ["/p/y.jpg"]


def test_a_vector_index_on_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miniclip.search.approximate, "SMALLEST_ANN", 300)
    with open_writer(tmp_path / "index", Settings("0" * 64, tmp_path, "x"), 32) as writer:
        writer.put(columns(300, 32), replace=False)
    with (
        largest_file(4096),
        pytest.raises(MiniClipError, match=r"^cannot write .*index: File too large; free some space"),
    ):
        miniclip.search.approximate.make_ann(ImageIndex.open(tmp_path / "index", in_memory=False))
    assert len(ImageIndex.open(tmp_path / "index")) == 300
