"""A ZIP archive that is written while it is sent."""

import io
import zipfile
from pathlib import Path

from demo.zip_stream import PART_BYTES, zip_stream


def test_the_archive_has_every_file_and_names_missing_ones(tmp_path: Path) -> None:
    paths = [tmp_path / "a/cat.jpg", tmp_path / "b/CAT.jpg", tmp_path / "b/gone.jpg"]
    for number, path in enumerate(paths[:2]):
        path.parent.mkdir()
        path.write_bytes(bytes([number]) * (3 * PART_BYTES + 5))
    parts = list(zip_stream([str(path) for path in paths]))
    assert max(map(len, parts)) < 2 * PART_BYTES  # the whole archive is never in memory
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["cat.jpg", "CAT (2).jpg", "not in this archive.txt"]
        assert archive.read("CAT (2).jpg") == paths[1].read_bytes()
        assert b"gone.jpg: No such file" in archive.read("not in this archive.txt")
