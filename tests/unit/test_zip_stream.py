"""A ZIP archive that is written while it is sent."""

import io
import os
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


def test_times_outside_those_of_a_zip_archive_become_its_earliest_and_latest(tmp_path: Path) -> None:
    for name, seconds in (("old.jpg", 0), ("future.jpg", 5e9)):
        (tmp_path / name).write_bytes(b"image")
        os.utime(tmp_path / name, (seconds, seconds))
    parts = zip_stream([str(tmp_path / "old.jpg"), str(tmp_path / "future.jpg")])
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        assert [entry.date_time[0] for entry in archive.infolist()] == [1980, 2107]
