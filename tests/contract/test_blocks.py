"""A tower that is split at any block gives the features of the whole tower, and trains only its upper part."""

from pathlib import Path

import pytest
import torch

from miniclip.models.backbones import load_backbone
from miniclip.models.dual_encoder import TextTower, VisionTower
from tests.support.architectures import TEXTS, VISION, images, in_tiers, padded, randomise, save_backbone, sentences
from train.blocks import UpperPart, blocks_of, example_image, example_text, lower_part


@pytest.mark.parametrize("name", in_tiers(VISION))
def test_a_vision_tower_split_at_any_block_gives_the_same_features(name: str) -> None:
    row = VISION[name]
    tower = VisionTower(randomise(row.make()), "auto").eval()
    pixel_values = images(3, row.size_px, seed=1)
    expected, example = tower(pixel_values), example_image(row.size_px, row.size_px)
    assert len(blocks_of(tower)) >= 2
    for first in range(len(blocks_of(tower))):
        with torch.no_grad():
            hidden = lower_part(tower, first, pixel_values)
        features = UpperPart(tower, first, example)(hidden)
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tower(pixel_values), expected)  # the tower itself is unchanged

    last = UpperPart(tower, len(blocks_of(tower)) - 1, example)
    last(hidden).square().sum().backward()
    learned = {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    assert learned
    for block in blocks_of(tower)[:-1]:
        assert all(parameter.grad is None for parameter in block.parameters())
    assert any(parameter.grad is not None for parameter in blocks_of(tower)[-1].parameters())


@pytest.mark.parametrize("name", in_tiers(TEXTS))
def test_a_text_tower_split_at_any_block_gives_the_same_features(name: str, tmp_path: Path) -> None:
    row = TEXTS[name]
    backbone = load_backbone(save_backbone(randomise(row.make()), tmp_path / "backbone"), "text")
    tower = TextTower(backbone, "auto").eval()
    tokens = [torch.from_numpy(array) for array in padded(row, sentences(row, [4, 9, 6], seed=1)).values()]
    expected = tower(*tokens)
    for first in range(len(blocks_of(tower))):
        with torch.no_grad():
            hidden = lower_part(tower, first, *tokens)
        torch.testing.assert_close(
            UpperPart(tower, first, *example_text(tower))(hidden, *tokens), expected, rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(tower(*tokens), expected)
