"""Long programs report their stage and the remaining time, also in logs and pipes."""

import re
import threading
from pathlib import Path

import pytest

from export.__main__ import _durations
from miniclip.data import stages as stages_module
from miniclip.data.stages import Stages
from tests.support.cli import run_cli


def test_a_stage_is_named_at_once_and_again_while_it_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages_module, "LINE_EVERY_S", 0.01)
    stages = Stages({"cutting": 1, "sewing": 3})
    repeated = threading.Event()
    line = stages.line

    def seen(name: str, seconds: float) -> str:
        repeated.set()
        return line(name, seconds)

    monkeypatch.setattr(stages, "line", seen)
    for name in ("cutting", "sewing"):
        repeated.clear()
        with stages(name):
            assert repeated.wait(30)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "cutting (1 of 2)" and "sewing (2 of 2)" in lines
    assert "cutting (1 of 2): 00:00 so far" in lines
    assert any(re.fullmatch(r"sewing \(2 of 2\): 00:00 so far, about 00:\d\d left", line) for line in lines)


def test_finished_stages_determine_the_remaining_time() -> None:
    stages = Stages({"a": 1, "b": 2, "c": 3})
    stages._done_share, stages._done_s = 1.0, 10.0  # `a` took ten seconds, so `b` takes 20 and `c` 30
    assert stages.line("b", 5) == "b (2 of 3): 00:05 so far, about 00:45 left"
    assert stages.line("b", 100) == "b (2 of 3): 01:40 so far, about 00:30 left"


@pytest.mark.parametrize("precisions", [["fp32"], ["fp32", "int8"]])
def test_an_export_names_each_of_its_stages(precisions: list[str], tiny_run: Path, tmp_path: Path) -> None:
    done = run_cli("export", "--run", tiny_run, "--out", tmp_path / "bundle", "--precision", *precisions)
    assert done.returncode == 0, done.stderr
    names = list(_durations(precisions, is_calibrated=True))
    expected = [f"{name} ({number} of {len(names)})" for number, name in enumerate(names, 1)]
    assert [line for line in done.stderr.splitlines() if re.search(r" \(\d of \d\)$", line)] == expected
