"""A fixture that keeps the journals of moves in the test's own folder."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLIP_STATE", str(tmp_path / "state"))
