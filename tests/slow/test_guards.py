"""Short fuzzing of all code that reads files made by others, and removed safeguards, one at a time."""

from pathlib import Path

import pytest

from tests.hostile.fuzz import TARGETS, fuzz
from tests.mutations import MUTATIONS, outcome, prepare
from tests.support.measurements import Record

SECONDS = 5


@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_finds_nothing(target: str, tmp_path: Path, record: Record) -> None:
    pytest.importorskip("atheris", reason="the fuzzer has no build for this Python or system")
    result = fuzz(target, SECONDS, tmp_path / target)
    assert result.findings == []
    assert result.cases > 20
    record(f"cases tried: fuzz of {target}", result.cases, f"cases in {SECONDS} s, {result.refused:,} of them refused")


def test_removing_any_safeguard_makes_a_test_fail(tmp_path: Path, record: Record) -> None:
    checkout = prepare(tmp_path, MUTATIONS)
    outcomes = {mutation.name: outcome(checkout, mutation) for mutation in MUTATIONS}
    assert set(outcomes.values()) == {"a test failed"}, outcomes
    record("guards taken away and missed", len(outcomes), f"of {len(MUTATIONS)}")
