"""An indexer that commits after every image, for processes that are killed."""

from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import lancedb
import pytest

from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.drawing import COLOURS, SHAPES, draw_image

KILLS, GOOD, BAD = 30, 120, 6


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return open_encoders(tiny_bundle)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of different content, and some that cannot be read."""
    folder = tmp_path_factory.mktemp("many")
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    for number in range(GOOD):
        image = draw_image(*kinds[number % len(kinds)], seed=number)
        image.putpixel((0, 0), (number, 0, 0))
        image.save(folder / f"{number:03}.png")
    for number in range(BAD):
        (folder / f"bad-{number}.jpg").write_bytes(b"no image %d" % number)
    return folder


def open_encoders(bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)


def index_eagerly(bundle: Path, images: Path, out: Path, begins: Event) -> None:
    """What the killed process runs: as the command does, but with a commit after every image, and a flat file."""
    import miniclip.index.indexer

    miniclip.index.indexer.COMMIT_EVERY_S = 0.0
    encoders = open_encoders(bundle)
    begins.set()
    miniclip.index.indexer.update_index(str(images), encoders, out)


def rows(index: Path) -> list[dict[str, Any]]:
    """Every row but for the moment at which it was written."""
    table = lancedb.connect(str(index)).open_table("pictures").to_arrow().drop_columns(["indexed_at"])
    return list(table.sort_by("path").to_pylist())
