"""Ways to damage a file: truncate, flip, enlarge, splice; and replace one value of a JSON document by a hostile one."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

PATH_TRICKS = (
    "../../etc/passwd", "..\\..\\windows\\win.ini", "/etc/passwd", "C:\\boot.ini", "//server/share/x", "file:///etc/passwd",
    "a/../../../etc/passwd", "%2e%2e%2fetc%2fpasswd", "..%c0%af..", "./", "..", "", "~", "~root/.ssh/id_rsa",
    "/dev/zero", "/proc/self/environ", "nul\0byte.png", "n" * 5000, "\u202egnp.exe", "a\nb", "-rf", "$(id)", "https://example.invalid/x",
)  # fmt: skip
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, float("nan"), float("inf"), "", "x", "\0",
    "\ud800", "9" * 400, "x" * 100_000, [], {}, [None], [[]], {"": None}, {"a": {"b": {"c": []}}}, [1] * 10_000,
    "../../etc/passwd",
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-32", "utf-8-sig", "cp1252", "utf-7", "shift_jis", "cp037")
DEEP = {
    "lists": b"[" * 200_000,
    "closed lists": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a deep value": b'{"format": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


def spoiled(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """`count` damaged versions of a file; a seed always gives the same ones."""
    chance = random.Random(seed)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            start, length = chance.randrange(len(damaged) + 1), chance.choice((1, 4, 16, 256))
            match chance.randrange(6):
                case 0:
                    del damaged[start:]
                case 1:
                    del damaged[start : start + length]
                case 2 if damaged:
                    damaged[start % len(damaged)] ^= 1 << chance.randrange(8)
                case 3:
                    damaged[start : start + length] = chance.choice((b"\xff", b"\0", b"\x7f")) * length
                case 4:
                    damaged[start:start] = damaged[:length]
                case _:
                    damaged[start : start + length] = chance.randbytes(length)
        yield bytes(damaged)


def every_place(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value of a JSON document, starting with the whole document."""
    yield place
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in children:
        yield from every_place(value, (*place, key))


def with_value(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at this path."""
    if not place:
        return value
    document = copy.deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return document


def wrong_documents(document: Any) -> Iterator[tuple[str, bytes]]:
    """Each value of a JSON document replaced by each hostile one; named by place and value."""
    for place in every_place(document):
        for value in HOSTILE_VALUES:
            name = f"{'.'.join(map(str, place)) or 'all'} = {ascii(value)[:40]}"
            yield name, json.dumps(with_value(document, place, value)).encode()
