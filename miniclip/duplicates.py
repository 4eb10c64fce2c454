"""Pictures that are there more than once: copies of a file, and pictures that look the same.

In: an index. Out: groups of rows. Equal files have the same content hash; a resized, cropped or saved-again picture has
nearly the same embedding. Every picture is compared with every other, so 10 times the pictures take 100 times as long.
"""

import numpy as np

from miniclip.errors import MiniClipError
from miniclip.index import PictureIndex

BLOCK = 2048  # rows compared at a time: 16 MB of scores with as many


def find_duplicates(index: PictureIndex, threshold: float = 0.97) -> list[list[int]]:
    """Groups of two or more rows, each linked to another by a similarity of at least `threshold`, in row order.

    A threshold of 1 finds equal files only. Errors: `MiniClipError` when it is not from 0 to 1.
    """
    if not 0 < threshold <= 1:
        raise MiniClipError(f"--threshold must be above 0 and at most 1, got {threshold:g}")
    group = index.content.astype(np.int64).copy()  # (N,) the group's first row, for equal files already there
    for first, second in _similar_pairs(index.image_embeds, threshold) if threshold < 1 else ():
        one, other = _first_of(group, first), _first_of(group, second)
        group[max(one, other)] = min(one, other)
    members: dict[int, list[int]] = {}
    for row in range(len(group)):
        members.setdefault(_first_of(group, row), []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


def _similar_pairs(image_embeds: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(image_embeds), BLOCK):
        block = image_embeds[start : start + BLOCK]
        for other in range(start, len(image_embeds), BLOCK):
            similarity = block @ image_embeds[other : other + BLOCK].T  # (BLOCK, BLOCK)
            rows, columns = np.nonzero(similarity >= threshold)
            pairs += [
                (start + int(r), other + int(c)) for r, c in zip(rows, columns, strict=True) if start + r < other + c
            ]
    return pairs


def _first_of(group: np.ndarray, row: int) -> int:
    while group[row] != row:
        group[row] = group[group[row]]  # halves the way for whoever comes next
        row = int(group[row])
    return row
