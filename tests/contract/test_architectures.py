"""Facts of an architecture: its first patch, its colours, its texts; and models that fit no rule."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from miniclip.errors import MiniClipError
from miniclip.models.backbones import load_backbone
from miniclip.models.dual_encoder import TextTower, VisionTower
from miniclip.models.tokenizer_files import tokenizer_json, write_tokenizer
from tests.support.architectures import IMAGES, TINY, VISION, images, randomise, save_backbone
from tests.support.replicas.building import word_tokenizer, write
from train.blocks import UpperPart, example_image

TEXTS = ["It's a Red,  Circle.", " the DOG"]


@pytest.mark.parametrize(
    ("name", "leading"),
    [("vit", 1), ("deit", 2), ("dinov2 with registers", 5), ("dinov3", 5), ("beit", 1), ("siglip", 0), ("swin", 0)],
)
def test_mean_pooling_uses_only_patch_tokens(name: str, leading: int) -> None:
    row = VISION[name]
    tower = VisionTower(row.make(), "auto")
    assert tower.leading_tokens == leading
    config = tower.backbone.config
    reduction = config.patch_size * (2 if name == "swin" else 1)  # its second stage merges four patches
    with torch.no_grad():
        tokens = tower.backbone(images(1, row.size_px, seed=0)).last_hidden_state
    assert tokens.shape[1] - leading == (row.size_px // reduction) ** 2


def test_a_model_outside_the_table_follows_the_rule(tmp_path: Path) -> None:
    hf.ViTMSNModel(hf.ViTMSNConfig(**IMAGES, **TINY)).save_pretrained(tmp_path)
    tower = VisionTower(load_backbone(tmp_path, "vision"), "auto")
    assert (tower.pooling, tower.leading_tokens, tower.feature_dim) == ("cls+mean", 1, 64)


@pytest.mark.parametrize(
    ("kind", "pooling", "name", "words"),
    [
        ("vision", "cls", "siglip", "--model.vision_pooling cls: siglip_vision_model has no class token"),
        ("vision", "mean", "convnext", "--model.vision_pooling mean: convnext has no tokens to pool"),
    ],
)
def test_a_missing_pooling_is_named(kind: str, pooling: str, name: str, words: str) -> None:
    with pytest.raises(MiniClipError, match=words):
        VisionTower(VISION[name].make(), pooling)


def test_a_text_backbone_that_fails_is_refused_with_the_reason() -> None:
    bert = hf.BertModel(hf.BertConfig(vocab_size=1, **TINY), add_pooling_layer=False)
    with pytest.raises(MiniClipError, match=r"--model\.text: a bert cannot be run: index out of range"):
        TextTower(bert, "auto")


def test_a_model_trained_on_blue_green_red_takes_red_green_blue(tmp_path: Path) -> None:
    original = randomise(VISION["mobilevit"].make())
    save_backbone(original, tmp_path)
    write(tmp_path / "preprocessor_config.json", {"do_flip_channel_order": True})
    ours, pixel_values = load_backbone(tmp_path, "vision"), images(2, 64, seed=1)
    with torch.no_grad():
        expected = original(pixel_values.flip(1)).pooler_output
        torch.testing.assert_close(ours(pixel_values).pooler_output, expected)


class Skipping(nn.Module):
    """A tower whose last step also uses the input of its blocks."""

    main_input_name = "pixel_values"

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="skipping", image_size=8)
        self.stem = nn.Conv2d(3, 4, 1)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()) for _ in range(3)))

    def forward(self, pixel_values: Tensor) -> Tensor:
        stem = self.stem(pixel_values)
        return torch.cat([stem, self.blocks(stem)], dim=1).mean(dim=(2, 3))


def test_a_tower_that_is_not_a_chain_of_blocks_is_not_split() -> None:
    with pytest.raises(MiniClipError, match=r"skipping cannot be split at block 1: .* use --train\.setup 1 or 2"):
        UpperPart(VisionTower(Skipping(), "auto"), 1, example_image(8, 8))


def test_siglip_texts_become_lower_case_without_punctuation(tmp_path: Path) -> None:
    word_tokenizer(tmp_path, tokenizer_class="SiglipTokenizer", do_lower_case=True)
    write(tmp_path / "config.json", {"model_type": "siglip"})
    (tmp_path / "run").mkdir()
    ours = write_tokenizer(tmp_path, tmp_path / "run", 12)
    (tmp_path / "config.json").unlink()
    plain = write_tokenizer(tmp_path, tmp_path / "run", 12)
    assert ours.ids(TEXTS) == plain.ids(["its a red circle", "the dog"])
    assert ours.ids(TEXTS) != plain.ids(TEXTS)


def test_a_complete_tokenizer_file_is_copied_unchanged(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    assert tokenizer_json(tmp_path) == (tmp_path / "tokenizer.json").read_bytes()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MiniClipError, match=r"has no tokenizer\.json"):
        tokenizer_json(tmp_path)
