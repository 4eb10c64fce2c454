"""Similar images, found block by block: the groups of all pairs, in limited memory."""

import dataclasses
import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from miniclip.index.image_index import ImageIndex
from miniclip.search import duplicates
from miniclip.search.duplicates import find_duplicates


def index_of(tiny_index: Path, embeds: np.ndarray, contents: np.ndarray | None = None) -> ImageIndex:
    contents = np.arange(len(embeds)) if contents is None else contents
    sha256 = np.stack([np.frombuffer(hashlib.sha256(str(content).encode()).digest(), np.uint8) for content in contents])
    return dataclasses.replace(ImageIndex.open(tiny_index), image_embeds=embeds, sha256=sha256)


def random_embeds(rows: int, dim: int, seed: int) -> np.ndarray:
    embeds = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return np.asarray(embeds / np.linalg.norm(embeds, axis=1, keepdims=True))


def plain_groups(embeds: np.ndarray, contents: np.ndarray, threshold: float) -> list[list[int]]:
    """The rows that can be reached from each row, step by step."""
    linked = (embeds @ embeds.T >= threshold) | (contents[:, None] == contents)
    groups, seen = [], set[int]()
    for row in range(len(embeds)):
        if row not in seen:
            group, waiting = set[int](), [row]
            while waiting:
                if (one := waiting.pop()) not in group:
                    group.add(one)
                    waiting += np.flatnonzero(linked[one]).tolist()
            seen |= group
            groups.append(sorted(group))
    return [group for group in groups if len(group) > 1]


@pytest.mark.parametrize("block", [1, 7, 64, 1024])
def test_groups_equal_those_of_all_pairs(tiny_index: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    for seed, threshold in enumerate((0.99, 0.999, 0.9999)):
        embeds = random_embeds(150, 3, seed)
        contents = np.random.default_rng(seed).integers(0, 400, 150)
        expected = plain_groups(embeds, contents, threshold)
        assert len(expected) > 1
        assert find_duplicates(index_of(tiny_index, embeds, contents), threshold) == expected


def test_a_chain_of_similar_images_is_one_group(tiny_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    angles = np.random.default_rng(0).permutation(200) * 0.005
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert find_duplicates(index_of(tiny_index, chain), float(np.cos(0.007))) == [list(range(200))]


def test_thousands_of_images_that_are_all_alike_take_little_memory(tiny_index: Path) -> None:
    alike = np.ones((3000, 64), dtype=np.float32) / 8
    index = index_of(tiny_index, alike)
    tracemalloc.start()
    try:
        groups = find_duplicates(index, 0.97)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert groups == [list(range(3000))]
    assert peak < 150e6  # all 4.5 million pairs together would take 600 MB
