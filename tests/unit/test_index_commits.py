"""A commit of an index is atomic: a concurrent reader sees all images before it or all images after it."""

import shutil
from pathlib import Path

import lancedb

from miniclip.index.indexer import update_index
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import encoders, images

__all__ = ["encoders", "images"]  # fixtures


def test_every_version_of_an_index_holds_all_images(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out)
    shutil.copy(images / "a.png", images / "b.png")
    update_index(str(images), encoders, out)
    table = lancedb.connect(str(out)).open_table("pictures")
    counts = []
    for version in table.list_versions():
        table.checkout(version["version"])
        counts.append(table.count_rows())
    assert counts == [0, 3, 3]
