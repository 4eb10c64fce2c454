"""Options of a config: each field has its default, its help and its bound in one place.

In: `option(default, help, bound)` as the default of a dataclass field. Out: fields whose metadata make the flags, the
help texts, and the errors for values out of bounds.
"""

from collections.abc import Callable
from dataclasses import Field, dataclass, field
from math import inf
from typing import Any


@dataclass(frozen=True)
class Bound:
    """The values that an option accepts. `wanted` completes "must be ..."."""

    wanted: str
    accepts: Callable[[Any], bool]


ANY = Bound("anything", lambda value: True)
ABOVE_0 = Bound("above 0 and finite", lambda value: 0 < value < inf)
NOT_NEGATIVE = Bound("at least 0 and finite", lambda value: 0 <= value < inf)
BELOW_1 = Bound("in [0, 1)", lambda value: 0 <= value < 1)


def at_least(low: float) -> Bound:
    return Bound(f"at least {low}", lambda value: value >= low)


def option(default: Any, help: str, bound: Bound = ANY) -> Any:
    """A dataclass field that is a flag as well."""
    return field(default=default, metadata={"help": help, "bound": bound})


def choice(default: str, names: tuple[str, ...], help: str = "") -> Any:
    """An option with these values, which its help lists."""
    bound = Bound(f"one of {', '.join(names)}", lambda value: value in names)
    return option(default, " | ".join(names) + (f": {help}" if help else ""), bound)


def bound_of(item: "Field[Any]") -> Bound:
    """The bound of a field that `option` made."""
    bound: Bound = item.metadata["bound"]
    return bound
