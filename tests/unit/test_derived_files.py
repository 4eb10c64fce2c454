"""An index opens from the files derived from its tables, if they hold exactly its rows."""

import mmap
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from miniclip.index.embeddings_mmap import FLAT
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.settings import Settings
from miniclip.index.store import open_writer
from miniclip.index.summary import ROWS
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.approximate import Int8Search
from miniclip.search.exact import ExactSearch
from tests.support.cli import REPOSITORY

DIM = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of invented images, not stored in the order of their paths."""
    folder = tmp_path / "index"
    put(folder, np.random.default_rng(0).permutation(500), embeddings_of=0)
    return folder


def put(folder: Path, numbers: np.ndarray, embeddings_of: int, day: int = 1) -> None:
    embeds = np.random.default_rng(embeddings_of).standard_normal((len(numbers), DIM), dtype=np.float32)
    columns = {
        "path": [f"/p/{number:04}.jpg" for number in numbers],
        "sha256": [int(number).to_bytes(32, "big") for number in numbers],
        "indexed_at": [datetime(2024, 1, day)] * len(numbers),
        "taken": pa.nulls(len(numbers), pa.timestamp("s")),
        "captions": [[]] * len(numbers),
        "embedding": pa.FixedSizeListArray.from_arrays(embeds.ravel(), DIM),
    }
    columns |= {name: [1] * len(numbers) for name in ("bytes", "mtime_ns", "width_px", "height_px")}
    with open_writer(folder, Settings("0" * 64, folder, "x"), DIM) as writer:
        writer.put(columns, replace=False)


def write_derived(folder: Path) -> None:
    ImageIndex.open(folder, in_memory=False).write_derived_files()


def is_mapped(index: ImageIndex) -> bool:
    """Whether the embeddings are mapped. Also checks that they equal those of the table."""
    np.testing.assert_array_equal(index.image_embeds, index.stored.read())
    owner: object = index.image_embeds
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    return isinstance(owner, mmap.mmap)


def test_a_flat_file_is_mapped_and_searched_without_a_copy(folder: Path) -> None:
    read = ImageIndex.open(folder)
    assert not is_mapped(read)
    write_derived(folder)
    mapped = ImageIndex.open(folder)
    assert is_mapped(mapped) and not mapped.image_embeds.flags.writeable and not read.image_embeds.flags.writeable
    gallery = ExactSearch(mapped.image_embeds)
    assert np.shares_memory(gallery.image_embeds, mapped.image_embeds)
    queries = np.random.default_rng(1).standard_normal((3, DIM), dtype=np.float32)
    for found, expected in zip(
        gallery.top_k(queries, 9), ExactSearch(read.image_embeds).top_k(queries, 9), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert len(Int8Search(mapped.stored).top_k(queries, 9)[0]) == 3


def test_a_change_is_written_again_and_does_not_affect_open_indexes(folder: Path) -> None:
    write_derived(folder)
    before = ImageIndex.open(folder)
    put(folder, np.arange(500, 510), embeddings_of=1)
    assert not is_mapped(ImageIndex.open(folder))
    write_derived(folder)
    after = ImageIndex.open(folder)
    assert is_mapped(after) and len(after) == 510
    assert is_mapped(before) and len(before.image_embeds) == 500


def test_the_file_stays_while_the_table_does_not_change(folder: Path) -> None:
    write_derived(folder)
    written = [os.stat(folder / name).st_mtime_ns for name in (FLAT, ROWS)]
    write_derived(folder)
    assert [os.stat(folder / name).st_mtime_ns for name in (FLAT, ROWS)] == written
    assert is_mapped(ImageIndex.open(folder))


def test_an_index_with_derived_files_equals_the_one_read_from_the_tables(folder: Path) -> None:
    read = ImageIndex.open(folder)
    write_derived(folder)
    mapped = ImageIndex.open(folder)
    assert mapped.paths == read.paths and mapped.captions == read.captions and mapped.skipped == read.skipped
    for name in ("image_embeds", "sha256", "states", "taken", "content"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(read, name))
    assert mapped.row_of("/p/0123.jpg") == 123 and mapped.row_of("/p/0123") is None
    assert mapped.below("/p").all() and not mapped.below("/p/0").any()
    assert mapped.paths.stored.to_pylist() == [str(path) for path in read.paths]


@pytest.mark.parametrize("damage", ["cut", "flip", "folder", "gone"])
def test_a_damaged_summary_is_not_used(folder: Path, damage: str) -> None:
    expected = ImageIndex.open(folder)
    write_derived(folder)
    content = bytearray((folder / ROWS).read_bytes())
    (folder / ROWS).unlink()
    if damage == "cut":
        (folder / ROWS).write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 0xFF
        (folder / ROWS).write_bytes(content)
    elif damage == "folder":
        (folder / ROWS).mkdir()
    assert ImageIndex.open(folder).paths == expected.paths


def test_an_index_with_derived_files_needs_neither_lancedb_nor_pyarrow(folder: Path) -> None:
    write_derived(folder)
    code = (
        "import sys; from miniclip.index.image_index import ImageIndex; from miniclip.search.searcher import Searcher; "
        f"index = ImageIndex.open({str(folder)!r}); assert index.captions[3] == [] and index.paths[3].name; "
        "print({'lancedb', 'pyarrow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


@pytest.mark.parametrize("size", [0, 31, 500 * DIM * 4, 500 * DIM * 4 + 31, 500 * DIM * 4 + 33])
def test_a_file_of_a_wrong_size_is_not_used(folder: Path, size: int) -> None:
    write_derived(folder)
    os.truncate(folder / FLAT, size)
    assert not is_mapped(ImageIndex.open(folder))
    write_derived(folder)
    assert is_mapped(ImageIndex.open(folder))


def test_a_file_of_a_replaced_index_is_not_used(folder: Path) -> None:
    """The two indexes differ only in their date: paths, images and the number of commits are the same."""
    write_derived(folder)
    for table in ("pictures.lance", "problems.lance"):
        shutil.rmtree(folder / table)
    put(folder, np.random.default_rng(0).permutation(500), embeddings_of=2, day=2)
    assert not is_mapped(ImageIndex.open(folder))
    write_derived(folder)
    assert is_mapped(ImageIndex.open(folder))


def test_a_file_that_cannot_be_written_is_optional(folder: Path) -> None:
    (folder / FLAT).mkdir()
    write_derived(folder)
    assert not is_mapped(ImageIndex.open(folder))


def test_indexing_writes_the_file_and_watching_does_not_renew_it(
    tiny_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    encoders, images, out = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32"), tmp_path / "p", tmp_path / "index"
    shutil.copytree(image_folder, images)
    update_index(str(images), encoders, out)
    assert is_mapped(ImageIndex.open(out))
    next(images.rglob("*.png")).unlink()
    update_index(str(images), encoders, out, flat=False)
    assert not is_mapped(ImageIndex.open(out))
    update_index(str(images), encoders, out)
    assert is_mapped(ImageIndex.open(out))
