"""An index of an older format opens, and the next update upgrades it without embedding again."""

import json
from datetime import datetime
from pathlib import Path

import lancedb
import numpy as np
import pytest
from PIL import Image

from miniclip.errors import IndexCorrupted, MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.lance_errors import unreadable
from miniclip.index.settings import INDEX_FORMAT
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import encoders, images

__all__ = ["encoders", "images"]  # fixtures


@pytest.fixture
def old_index(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> Path:
    """Format 2: no columns `remark` and `retryable`, and no date, because its spelling was unknown then."""
    exif = Image.Exif()
    exif[0x8769] = {0x9003: "2025-01-14T09:00:00+02:00"}
    Image.new("RGB", (20, 20), (9, 90, 200)).save(images / "dated.jpg", exif=exif)
    (images / "bad.jpg").write_bytes(b"no image")
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    database = lancedb.connect(str(out))
    database.open_table("pictures").drop_columns(["remark"])
    database.open_table("pictures").update(values_sql={"taken": "NULL"})
    database.open_table("problems").drop_columns(["retryable"])
    values = json.loads((out / "index.json").read_text())
    values.pop("exclude")
    (out / "index.json").write_text(json.dumps(values | {"format": 2}))
    return out


def test_an_old_index_opens_and_names_its_problems(old_index: Path) -> None:
    index = ImageIndex.open(old_index)
    assert len(index) == 4 and index.dated == 0 and [problem.retryable for problem in index.skipped] == [True]


def test_the_next_update_brings_it_to_this_format_without_embedding(
    encoders: OnnxEncoders, images: Path, old_index: Path
) -> None:
    before = ImageIndex.open(old_index)
    report = update_index(str(images), encoders, old_index)
    assert (report.added, report.kept, report.removed, len(report.skipped)) == (0, 4, 0, 1)
    after = ImageIndex.open(old_index)
    assert np.array_equal(before.image_embeds, after.image_embeds)
    row = after.row_of(images / "dated.jpg")
    assert after.dated == 1 and after.taken[row] == np.datetime64(datetime(2025, 1, 14, 9))
    assert json.loads((old_index / "index.json").read_text())["format"] == INDEX_FORMAT
    assert [problem.retryable for problem in after.skipped] == [False]  # it was retried
    again = update_index(str(images), encoders, old_index)
    assert (again.added, again.kept, again.undated) == (0, 4, 3)


def test_an_upgrade_that_was_killed_goes_on(encoders: OnnxEncoders, images: Path, old_index: Path) -> None:
    lancedb.connect(str(old_index)).open_table("pictures").add_columns({"remark": "cast(NULL as string)"})
    assert update_index(str(images), encoders, old_index).kept == 4
    assert ImageIndex.open(old_index).dated == 1


def test_a_truncated_jpeg_is_indexed_with_a_remark(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "cut.jpg")
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:-2])
    report = update_index(str(images), encoders, tmp_path / "index")
    assert (report.added, report.remarks, report.skipped) == (4, 1, [])
    assert "1 damaged but shown" in str(report)
    assert "cut.jpg: its last bytes are missing; indexed as it shows" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("error", "is_corrupted", "words"),
    [
        (PermissionError(13, "Permission denied"), False, "Permission denied"),
        (
            RuntimeError("LanceError(IO): Permission denied (os error 13), x.rs"),
            False,
            "Permission denied",
        ),
        (OSError(5, "Input/output error"), False, "its disk"),
        (RuntimeError("LanceError(IO): Too many open files (os error 24)"), False, "Too many open files"),
        (MemoryError(), False, "not enough memory"),
        (RuntimeError("Cannot allocate memory (os error 12)"), False, "not enough memory"),
        (TypeError("x() takes 1 argument"), False, "MINICLIP_DEBUG=1"),
        (AttributeError("no attribute"), False, "MINICLIP_DEBUG=1"),
        (FileNotFoundError(2, "No such file"), True, "delete it"),
        (ValueError("Invalid manifest"), True, "delete it"),
        (RuntimeError("LanceError(IO): file is corrupt"), True, "delete it"),
    ],
)
def test_only_damage_is_a_reason_to_delete(error: Exception, is_corrupted: bool, words: str) -> None:
    refused = unreadable(Path("index"), error)
    assert isinstance(refused, MiniClipError) and words in str(refused) and "\n" not in str(refused)
    assert isinstance(refused, IndexCorrupted) == is_corrupted == ("delete" in str(refused))
