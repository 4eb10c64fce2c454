"""A move that is killed at a random moment leaves every file exactly once, within one file system and between two.

Processes are real, and forked after their imports. After each kill, before and after the repair, the test looks for the
content of every file in both folders.
"""

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from miniclip.index.move_journal import journals, read_journal
from miniclip.index.relocate import recover, relocate, undo
from miniclip.index.relocation_plan import plan_relocation
from tests.support.killing import start
from tests.support.measurements import Record

KILLS, MAX_RUNS = 30, 120
SIZES = {"one file system": (1500, 1 << 6), "two file systems": (60, 1 << 18)}  # files and bytes: tenths of a second


def move(sources: list[str], into: str, state: str, begins: Event) -> None:
    """The code of the killed process."""
    os.environ["MINICLIP_STATE"] = state
    plan = plan_relocation(sources, into, "move")
    begins.set()
    relocate(plan)


@pytest.fixture(params=list(SIZES))
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    if request.param == "one file system":
        yield tmp_path / "photos", tmp_path / "chosen"
        return
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own here")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        yield tmp_path / "photos", Path(other) / "chosen"


def places(*folders: Path) -> Counter[bytes]:
    """How often each content exists; an incomplete copy under its hidden name counts separately."""
    return Counter(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def test_thirty_kills_at_random_moments_leave_every_file_exactly_once(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record: Record,
    request: pytest.FixtureRequest,
) -> None:
    photos, chosen = folders
    case = request.node.callspec.params["folders"]
    files, size = SIZES[case]
    monkeypatch.setenv("MINICLIP_STATE", str(tmp_path / "state"))
    photos.mkdir()
    for number in range(files):
        (photos / f"{number:04}.jpg").write_bytes(number.to_bytes(2, "big") * (size // 2))
    expected = places(photos)
    moments, killed, interrupted, seconds = random.Random(0), 0, 0, 120.0
    for run in range(MAX_RUNS):  # the first run is not killed: it measures the time of a move
        sources = [str(path) for path in sorted(photos.iterdir())]
        process = start(move, (sources, str(chosen), str(tmp_path / "state")))
        started = time.monotonic()
        process.join(moments.uniform(0, seconds) if run else 120)
        if process.exitcode is not None:
            seconds = min(seconds, time.monotonic() - started)
        process.kill()
        process.join()
        was_killed = process.exitcode == -signal.SIGKILL
        killed += was_killed
        found = places(photos, chosen)
        assert all(found[content] >= 1 for content in expected), "a file was lost"
        if case == "one file system":
            assert found == expected, "a rename is one step: nothing has to be repaired"
        batches = journals()
        interrupted += was_killed and bool(batches) and not read_journal(batches[-1]).has_ended
        recover()
        assert places(photos, chosen) == expected
        if chosen.exists():
            assert not list(chosen.glob(".*"))  # no hidden file is left
            if list(chosen.iterdir()):
                undo()
        assert places(photos) == expected and places(chosen) == Counter()
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        if interrupted == KILLS:
            break
    assert interrupted == KILLS, f"{killed} of {MAX_RUNS} moves were killed, {interrupted} of these half-way"
    record(f"kills survived: move, {case}", interrupted, "kills")
