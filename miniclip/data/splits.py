"""Splits by image: their names, and 80/10/10 by a seed for data sets without splits."""

import random
from collections.abc import Sequence

from miniclip.errors import MiniClipError

SPLIT_WORDS = {"train": "train", "training": "train", "restval": "train", "val": "val", "valid": "val", "dev": "val"}
SPLIT_WORDS |= {"validation": "val", "test": "test", "testing": "test"}
SPLITS = ("train", "val", "test")


def normalise_split(name: str) -> str:
    """`train`, `val` or `test` for any usual synonym (`restval` is train); `MiniClipError` for other words."""
    split = SPLIT_WORDS.get(name.strip().lower())
    if split is None:
        raise MiniClipError(f"unknown split {name!r}; use train, val or test")
    return split


def seeded_splits(names: Sequence[str], seed: int, groups: Sequence[str] | None = None) -> list[str]:
    """A split for each name, at random by `seed`: 80 % train, 10 % val, 10 % test; all train if there are under three.

    Names of the same group get the same split; by default, each name is a group. The order of names does not matter.
    """
    groups = names if groups is None else groups
    shuffled = sorted(set(groups))
    random.Random(seed).shuffle(shuffled)
    held_out = max(1, round(len(shuffled) / 10)) if len(shuffled) >= 3 else 0
    split_of = dict.fromkeys(shuffled, "train")
    split_of |= dict.fromkeys(shuffled[:held_out], "val")
    split_of |= dict.fromkeys(shuffled[held_out : 2 * held_out], "test")
    return [split_of[group] for group in groups]
