"""The measurements of the slow tests, as a table at the end of their run; docs/reliability.md shows it.

The hook must be in the main conftest, the only one that is loaded by the process that starts pytest's workers. With
`MINICLIP_RECORD=FILE`, each row is also appended there as one line of JSON.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Figure(NamedTuple):
    """One row: its name, the number, and the unit."""

    name: str
    figure: float
    of: str


Record = Callable[[str, float, str], None]


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """`record("kills survived: train", 40, "kills")` adds a row to the table."""

    def add(name: str, figure: float, of: str) -> None:
        row = Figure(name, figure, of)
        record_property("figure", (name, float(figure), of))  # plain types, which workers can send
        if "MINICLIP_RECORD" in os.environ:
            with Path(os.environ["MINICLIP_RECORD"]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row._asdict()) + "\n")

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    figures = [Figure(*value) for one in reports for name, value in one.user_properties if name == "figure"]
    if not figures:
        return
    terminalreporter.section("cases tried, kills survived, requests refused, load held")
    width = max(len(row.name) for row in figures)
    for row in figures:
        terminalreporter.write_line(f"{row.name:{width}}  {row.figure:>12,.6g}  {row.of}")
