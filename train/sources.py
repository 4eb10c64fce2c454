"""The data sets of a run, and how often an epoch uses each of them.

In: the values of `--data`, such as `flickr8k coco:1.5 openmoji:0.3`. Out: one `Source` for each value, and the rows of
an epoch. The first source determines the best epoch and early stopping; with `--train.select all`, all sources do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from miniclip.errors import MiniClipError
from miniclip.files import expand

HELD_OUT = "held-out"  # split of the validation images of every source except the first
UNCAPTIONED = "uncaptioned"  # split of images that only a teacher describes
MIN_HELD_OUT = 10  # fewer images are too few to choose an epoch
_WEIGHTED = re.compile(r"(.+):(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Source:
    """A data set."""

    spec: str  # for `read_captions`
    weight: float = 1.0  # passes over its training images per epoch
    name: str = ""


def parse_sources(values: Sequence[str]) -> list[Source]:
    """Parse `PATH` or `PATH:WEIGHT`. A source is named after the last part of its path; equal names get numbers.

    Errors: `MiniClipError` for a weight that is not above 0.
    """
    sources: list[Source] = []
    for value in values:
        match = _WEIGHTED.fullmatch(value)
        if match is None or expand(value).exists():  # "a:1" may be the name of a folder
            spec, weight = value, 1.0
        else:
            spec, weight = match[1], float(match[2])
        if weight <= 0:
            raise MiniClipError(f"--data {value}: the weight must be above 0; leave the source out instead")
        name = PurePath(spec.rstrip("/")).name or spec
        taken, unique, number = {source.name for source in sources}, name, 1
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        sources.append(Source(spec, weight, unique))
    return sources


def draw(
    units: np.ndarray, source_of_unit: np.ndarray, weights: Sequence[float], generator: np.random.Generator
) -> np.ndarray:
    """The images (or captions) of one epoch, drawn from each source according to its weight.

    With a weight of 1.3, an epoch has every image once, and three tenths of them, drawn at random, a second time. The
    number of images is the same in every epoch.
    """
    if all(weight == 1 for weight in weights):
        return units
    drawn = []
    for source, weight in enumerate(weights):
        own = units[source_of_unit == source]
        whole, part = divmod(weight, 1.0)
        drawn += [own] * int(whole)
        drawn.append(generator.permutation(own)[: round(part * len(own))])
    return np.concatenate(drawn)


def selection_score(first: float, held_out: dict[str, tuple[float, int]], first_images: int) -> float:
    """The mean of all sources' mean recalls, weighted by the square root of their numbers of images.

    `held_out` has mean recall and number of images by source. The square root follows the standard error of a recall:
    a source with four times as many images counts twice as much. Sources with fewer than `MIN_HELD_OUT` images do not
    count.
    """
    counted = [(first, first_images), *(value for value in held_out.values() if value[1] >= MIN_HELD_OUT)]
    shares = np.sqrt([images for _, images in counted])
    return float(np.average([recall for recall, _ in counted], weights=shares))
