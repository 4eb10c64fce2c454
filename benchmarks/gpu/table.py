"""The results of the checks, one line each: printed as a table, and written as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Line:
    """One measurement. `passed` is None if there is no requirement; `figures` go into the JSON."""

    name: str
    value: str
    wanted: str = ""
    passed: bool | None = None
    figures: dict[str, Any] = field(default_factory=dict)


class Table:
    """Lines in the order in which they were measured; each is printed immediately."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, name: str, value: str, wanted: str = "", passed: bool | None = None, **figures: Any) -> None:
        line = Line(name, value, wanted, passed, figures)
        self.lines.append(line)
        print(format_line(line), flush=True)

    @property
    def failed(self) -> list[Line]:
        return [line for line in self.lines if line.passed is False]

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(line) for line in self.lines]


def format_line(line: Line) -> str:
    verdict = {None: "", True: "ok", False: "FAILED"}[line.passed]
    return f"{line.name:<46} {line.value:>34}  {line.wanted:<30} {verdict}".rstrip()
