"""An index says that an update was stopped, until an update finishes."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from miniclip.cli.main import run
from miniclip.index.indexer import update_index, write_here
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import encoders
from tests.support.photos import write_photo

__all__ = ["encoders"]  # a fixture


def test_info_says_that_an_update_was_stopped(
    encoders: OnnxEncoders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "index"

    def info() -> dict[str, Any]:
        capsys.readouterr()
        assert run(["info", str(out), "--provider", "cpu", "--json"]) == 0
        facts: dict[str, Any] = json.loads(capsys.readouterr().out)
        return facts

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    write_photo(folder / "a.jpg")
    update_index(str(folder), encoders, out)
    assert "unfinished" not in info()
    write_photo(folder / "b.jpg", colour="blue")
    with pytest.raises(KeyboardInterrupt):
        update_index(str(folder), encoders, out, partial(write_here, progress=stop))
    said = info()["unfinished"]
    assert said.startswith("an update is running or was stopped") and said.endswith(
        f"miniclip index {folder} --out {out}"
    )
    assert update_index(str(folder), encoders, out).added == 1
    assert "unfinished" not in info()


def test_info_says_that_an_older_index_lacks_facts(
    encoders: OnnxEncoders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photo(tmp_path / "photos" / "a.jpg")
    update_index(str(tmp_path / "photos"), encoders, tmp_path / "index")
    settings = json.loads((tmp_path / "index/index.json").read_text())
    (tmp_path / "index/index.json").write_text(json.dumps(settings | {"format": 3}))
    assert run(["info", str(tmp_path / "index"), "--provider", "cpu"]) == 0
    assert (
        "unfinished   an older MiniCLIP made it and lacks: camera, rating, latitude, longitude, file type"
        in capsys.readouterr().out
    )
