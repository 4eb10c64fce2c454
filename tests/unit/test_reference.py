"""The bundle that ships still gives the embeddings of its release, which are stored here."""

import numpy as np
import pytest

from tests.support.reference import FILE, embed

MIN_COSINE = 0.98  # 8-bit products are rounded differently on a CPU with VNNI


@pytest.fixture(scope="module")
def embeds() -> dict[str, np.ndarray]:
    return embed()


@pytest.mark.parametrize("name", ["image_embeds", "text_embeds"])
def test_the_shipped_bundle_keeps_its_embeddings(name: str, embeds: dict[str, np.ndarray]) -> None:
    stored = np.load(FILE)[name].astype(np.float32)
    cosines = embeds[name] @ stored.T  # (N, N)
    assert embeds[name].shape == stored.shape
    assert cosines.diagonal().min() >= MIN_COSINE
    others = cosines[~np.eye(len(cosines), dtype=bool)]
    assert others.max() < 0.95, "embeddings of different inputs are too alike to tell them apart"


def test_shipped_bundle_finds_the_red_circle(embeds: dict[str, np.ndarray]) -> None:
    scores = embeds["image_embeds"] @ embeds["text_embeds"][0]
    assert int(scores.argmax()) == 0
