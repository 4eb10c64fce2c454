"""An indexer that commits after every image, for processes that are killed, and the rows that it leaves."""

from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import lancedb
import pytest

from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.drawing import make_distinct_images

GOOD, BAD = 120, 6


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of different content, and some that cannot be read."""
    return make_distinct_images(tmp_path_factory.mktemp("many"), GOOD, BAD)


def index_eagerly(bundle: Path, images: Path, out: Path, begins: Event) -> None:
    """The code of the killed process: the command, but with a commit after every image, and a flat file."""
    import miniclip.index.indexer

    miniclip.index.indexer.COMMIT_EVERY_S = 0.0
    encoders = OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)
    begins.set()
    miniclip.index.indexer.update_index(str(images), encoders, out, ocr=False)  # as in the process of the tests


def commits(index: Path) -> int:
    """The number of commits, which shows the progress of `miniclip index`."""
    return len(list((index / "pictures.lance/_versions").glob("*.manifest")))


def rows(index: Path) -> list[dict[str, Any]]:
    """Every row, without the time when it was written."""
    table = lancedb.connect(str(index)).open_table("pictures").to_arrow().drop_columns(["indexed_at"])
    return list(table.sort_by("path").to_pylist())
