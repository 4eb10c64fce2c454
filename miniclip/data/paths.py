"""Paths of files as text that can be stored and printed, even if their names are not valid UTF-8."""

PRIVATE_USE = 0x10DC00  # stored instead of U+DC00, from which Python counts bytes that are not UTF-8; no script uses it


def stored_path(path: str) -> str:
    """A path as valid text: bytes that are not UTF-8 become characters for private use. `real_path` is the inverse."""
    if path.isascii() or path.isprintable():
        return path
    return "".join(chr(ord(char) - 0xDC00 + PRIVATE_USE) if 0xDC80 <= ord(char) <= 0xDCFF else char for char in path)


def real_path(stored: str) -> str:
    """The path to open, from the form of `stored_path`."""
    if stored.isascii() or stored.isprintable():
        return stored
    low, high = PRIVATE_USE + 0x80, PRIVATE_USE + 0xFF
    return "".join(chr(ord(char) - PRIVATE_USE + 0xDC00) if low <= ord(char) <= high else char for char in stored)


def valid_text(text: str) -> str:
    """A user's text in a form that can be stored: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(name: str) -> str:
    """A stored or real path on one line of valid text; line ends and bytes that are not UTF-8 become escapes."""
    text = real_path(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
