"""Find the image of a caption if its name differs from the file in Unicode form, case or suffix.

In: the folders that hold the images, and names. Out: paths, and a count for each rule. Macs store names in decomposed
form (NFD). Other systems and most caption files use the composed form (NFC).
"""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from miniclip.data.images import SUFFIXES


def composed(name: str) -> str:
    """A name in Unicode's composed form."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _any_case(name: str) -> str:
    return composed(composed(name).casefold())


def _without_suffix(name: str) -> str:
    name = _any_case(name)
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


RULES: dict[str, Callable[[str], str]] = {
    "in another Unicode form": composed,
    "in another case": _any_case,
    "with another suffix or none": _without_suffix,
}


class FileNames:
    """The names of all files below some folders. They are listed when `find` is first called."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places
        self._found: Counter[str] = Counter()
        self._ambiguous: list[str] = []

    def find(self, name: str) -> tuple[Path | None, str]:
        """The file that the first matching rule finds, and ""; or None and a reason if no file or several match."""
        for rule, form in RULES.items():
            paths = self._by_rule[rule].get(form(name), [])
            if len(paths) == 1:
                self._found[rule] += 1
                return paths[0], ""
            if paths:
                shown = ", ".join(sorted(path.name for path in paths)[:3])
                self._ambiguous.append(f"{name} ({shown})")
                return None, f"several files have this name {rule}: {shown}"
        return None, "no such file"

    def notes(self) -> list[str]:
        """Messages: how many names each rule found, and which names match several files."""
        notes = [f"{count:,} image names are written {rule} than their files" for rule, count in self._found.items()]
        if self._ambiguous:
            rest = f" and {len(self._ambiguous) - 3:,} more" if len(self._ambiguous) > 3 else ""
            notes.append(f"ambiguous image names: {'; '.join(self._ambiguous[:3])}{rest}")
        return notes

    @cached_property
    def _by_rule(self) -> dict[str, dict[str, list[Path]]]:
        by_rule: dict[str, dict[str, list[Path]]] = {rule: defaultdict(list) for rule in RULES}
        for place in self._places:
            for parent, _, names in os.walk(place):
                for name in names:
                    path = Path(parent, name)
                    relative = path.relative_to(place).as_posix()
                    for rule, form in RULES.items():
                        if rule == "with another suffix or none" and not name.lower().endswith(SUFFIXES):
                            continue
                        by_rule[rule][form(relative)].append(path)
        return by_rule
