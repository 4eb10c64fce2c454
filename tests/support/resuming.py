"""Trainings that are interrupted in a chosen epoch, and runs that must be equal."""

from pathlib import Path

import pytest

import train.trainer
from tests.support.training import records_of
from train.validation import validate

TOWERS = {"vision_learning_rate": 1e-3, "text_learning_rate": 1e-3}


def interrupt_in_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Interrupt training while it validates this epoch, after the last step."""
    count = 0

    def validate_or_fail(*arguments: object) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == epoch:
            raise KeyboardInterrupt
        return validate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train.trainer, "validate", validate_or_fail)


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert (ours / "config.json").read_bytes() == (theirs / "config.json").read_bytes()
    assert len(records_of(ours)) == len(records_of(theirs))
    for our_record, their_record in zip(records_of(ours), records_of(theirs), strict=True):
        assert {**our_record, "seconds": 0} == {**their_record, "seconds": 0}
