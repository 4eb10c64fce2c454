"""Choose the image of each group of duplicates to keep: the one with the most pixels, then the sharpest.

In: groups of rows from `find_duplicates`. Out: for each kept image, the images that it replaces. Groups are chains,
whose first and last image may look different. So an image is dropped only for a kept image that is similar to it.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from miniclip.data.images import open_image, opened_image
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.relocation_plan import Plan, keeping, plan_relocation, plan_trash
from miniclip.search.duplicates import is_as_indexed, target_of

SHARPNESS_PX = 1024  # longest edge at which images of equally many pixels are compared


@dataclass(frozen=True)
class Choice:
    """The kept row, and the rows that it replaces."""

    kept: int
    others: list[int]


def choose_best(groups: Sequence[Sequence[int]], index: ImageIndex, threshold: float) -> list[Choice]:
    """In each group, choose the best image and drop the images similar to it; repeat for the rest.

    Choices that drop nothing are omitted. Files that are gone, changed since they were indexed, or in object storage
    take no part, and only the first of several paths to one file takes part. Otherwise the only copy could be removed.
    """
    choices = []
    for rows in groups:
        left = np.array(_best_first(_distinct_files(rows, index), index), dtype=np.int64)
        while len(left) > 1:
            kept, rest = int(left[0]), left[1:]
            similarity = index.embeds(rest) @ index.embeds([kept])[0]  # (R,)
            is_alike = index.content[rest] == index.content[kept]
            if threshold < 1 and np.isnan(index.frames.second[kept]):
                is_alike |= (similarity >= threshold) & np.isnan(index.frames.second[rest])
            if is_alike.any():
                choices.append(Choice(kept, rest[is_alike].tolist()))
            left = rest[~is_alike]
    return choices


def plan_others(choices: Sequence[Choice], index: ImageIndex, folder: str) -> Plan:
    """Move all other copies into `folder`, or to the trash if it is ""; errors as in `plan_relocation`."""
    file = index.paths.file
    kept_for = {file(row): file(choice.kept) for choice in choices for row in choice.others}
    paths = list(kept_for)
    return keeping(plan_relocation(paths, folder, "move") if folder else plan_trash(paths), kept_for)


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian of the brightness at a common scale (Pech-Pacheco et al. 2000, section 3)."""
    grey = image.convert("L")
    grey.thumbnail((SHARPNESS_PX, SHARPNESS_PX))
    light = np.asarray(grey, dtype=np.float32)  # (H, W)
    if min(light.shape) < 3:
        return 0.0
    inner = light[1:-1, 1:-1]
    laplacian = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def _best_first(rows: Sequence[int], index: ImageIndex) -> list[int]:
    """By pixels, then sharpness, then bytes, then path. Rows whose file cannot be read are left out."""
    pixels: dict[int, int] = {}
    for row in rows:
        with suppress(MiniClipError), opened_image(index.source(row)) as image:
            pixels[row] = image.width * image.height
    how_often = Counter(pixels.values())

    @cache
    def sharpness_of(content: int) -> float:
        try:
            return sharpness(open_image(index.source(content), min_size_px=SHARPNESS_PX))
        except MiniClipError:
            return 0.0

    def rank(row: int) -> tuple[float, ...]:
        is_decided = how_often[pixels[row]] == 1  # decoding is slow
        sharp = 0.0 if is_decided else sharpness_of(int(index.content[row]))
        return -pixels[row], -sharp, -int(index.states[row, 0]), row

    return sorted(pixels, key=rank)


def _distinct_files(rows: Sequence[int], index: ImageIndex) -> list[int]:
    """The rows whose file has not changed since it was indexed, each file once."""
    files: dict[str, int] = {}
    for row in rows:
        path = index.paths.file(row)
        if is_as_indexed(path, index.states[row]):
            files.setdefault(target_of(path), row)
    return list(files.values())
