"""Find images that exist more than once: copies of a file, and images that look the same.

In: an index. Out: groups of rows. Equal files have the same content hash; a resized, cropped or re-encoded image has
nearly the same embedding. Every image is compared with every other, so 10 times as many images take 100 times as long.
Videos count as duplicates only if their files are equal: two that have one frame in common differ in others. The row of
a video is its first frame.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from miniclip.data.progress import ProgressBar
from miniclip.errors import InvalidArgument
from miniclip.index.image_index import ImageIndex
from miniclip.index.scan import state_of

FEW_BLOCKS = 20  # these finish before a bar could be read
BLOCK = 1024  # rows compared at a time: 4 MB of scores with as many rows, 16 MB of pairs if all are similar


def check_threshold(threshold: float) -> None:
    """`InvalidArgument` unless it is a similarity above 0, and at most 1."""
    if not 0 < threshold <= 1:
        raise InvalidArgument("threshold", f"must be above 0 and at most 1, got {threshold:g}")


def find_duplicates(index: ImageIndex, threshold: float = 0.97) -> list[list[int]]:
    """Groups of two or more rows, each linked to another by a similarity of at least `threshold`, in row order.

    A threshold of 1 finds equal files only. Errors: those of `check_threshold`.
    """
    check_threshold(threshold)
    group = index.content.astype(np.int64).copy()  # (N,) the first row of each group; equal files are already joined
    frames = index.frames
    for first, second in _similar_pairs(index.image_embeds, threshold) if threshold < 1 else ():
        if frames:
            are_images = np.isnan(frames.second[first]) & np.isnan(frames.second[second])
            first, second = first[are_images], second[are_images]
        _join(group, first, second)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(np.bincount(group)[group] > 1).tolist():
        if not frames or frames.first[row] == row:
            members.setdefault(int(group[row]), []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


def kinds(index: ImageIndex, rows: Sequence[int]) -> Iterator[str]:
    """The kind of each row: `first`, then `same file` (a link to an earlier one), `equal` to it, or `similar`."""
    seen = set[str]()
    for row in rows:
        file = target_of(index.paths.file(row))
        if not seen:
            yield "first"
        elif file in seen:
            yield "same file"
        else:
            yield "equal" if index.content[row] == index.content[rows[0]] else "similar"
        seen.add(file)


def to_delete(groups: Sequence[Sequence[int]], index: ImageIndex) -> Iterator[str]:
    """All paths of each group but the first, without further paths to a file that is kept or already listed.

    A link and its target are one file; listing either of them could remove the only copy. Files that are gone or
    changed since indexing are also ignored, because another file may now be the only copy.
    """
    for rows in groups:
        seen = set[str]()
        for row in rows:
            path = index.paths.file(row)
            if not is_as_indexed(path, index.states[row]):
                continue
            if (file := target_of(path)) not in seen:
                if seen:
                    yield path
                seen.add(file)


def is_as_indexed(path: str, state: np.ndarray) -> bool:
    """Whether a file is unchanged since it was indexed; False in object storage, where a check takes a request."""
    try:
        return state_of(os.stat(path)) == tuple(state.tolist())
    except OSError:
        return False


def target_of(path: str) -> str:
    """The file that a file's path leads to, with all links followed."""
    return os.path.realpath(path.removeprefix("file://"))


def _similar_pairs(image_embeds: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of similar rows, (P,) and (P,), one block at a time: all at once could take gigabytes."""
    starts = range(0, len(image_embeds), BLOCK)
    disable = None if len(starts) > FEW_BLOCKS else True
    for start in ProgressBar(starts, desc="comparing images", leave=False, disable=disable):
        block = image_embeds[start : start + BLOCK]
        for other in range(start, len(image_embeds), BLOCK):
            similarity = block @ image_embeds[other : other + BLOCK].T  # (BLOCK, BLOCK)
            rows, columns = np.nonzero(similarity >= threshold)
            yield start + rows, other + columns


def _join(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Join the groups of each pair. `group` (N,) holds the first row of every row's group."""
    while len(apart := np.flatnonzero(group[first] != group[second])):
        first, second = first[apart], second[apart]
        one, other = group[first], group[second]
        np.minimum.at(group, np.maximum(one, other), np.minimum(one, other))
        while (group != (above := group[group])).any():  # joining pairs makes chains
            group[:] = above
