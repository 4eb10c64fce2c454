"""A table as text; each column is as wide as its content."""

from collections.abc import Sequence

GAP = "  "


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells -> lines; the first column is aligned left, the others right.

    >>> print(text_table([["", "recall"], ["tiny fp32", "12.5"]]))
               recall
    tiny fp32    12.5
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(GAP.join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
