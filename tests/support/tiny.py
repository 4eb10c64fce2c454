"""A tiny real model: EfficientNet-Lite and BERT with random weights, and a recipe that trains them in seconds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.support.drawing import COLOURS, SHAPES, WORDS, draw_image

if TYPE_CHECKING:
    import torch


def write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer with BERT's special tokens."""
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", "model_max_length": 32}))


def _settled(model: "torch.nn.Module") -> "torch.nn.Module":
    """Fit the batch norms to some images; otherwise activations become too small for half precision."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5
    images = [np.asarray(draw_image(c, s, (64, 64)), np.float32) / 127.5 - 1 for c in COLOURS for s in SHAPES]
    pixel_values = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2))
    with torch.no_grad():
        for _ in range(20):
            model.train()(pixel_values)
    return model.eval()


def write_backbones(vision: Path, text: Path) -> None:
    """Write a narrow EfficientNet-Lite and a two-layer BERT with random weights, like save_pretrained."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig

    torch.manual_seed(0)
    vision.mkdir(parents=True, exist_ok=True)
    config = EfficientNetLiteConfig(width=0.25, depth=0.5, hidden_size=64)
    save_file(_settled(EfficientNetLite(config)).state_dict(), vision / "model.safetensors")
    settings = {"model_type": config.model_type, "variant": "lite0", "width": 0.25, "depth": 0.5, "hidden_size": 64}
    (vision / "config.json").write_text(json.dumps(settings))
    preprocessor = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (vision / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=40, max_position_embeddings=32, **size), add_pooling_layer=False).save_pretrained(
        text
    )
    write_tokenizer(text)


def write_recipe(path: Path, vision: Path, text: Path) -> None:
    """A recipe for these backbones that trains in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'[model]\nvision = "{vision}"\ntext = "{text}"\nprojection_dim = 32\nimage_size_px = 64\nmax_tokens = 16\n'
        "[train]\nepochs = 4\nbatch_size = 32\nlearning_rate = 1e-2\npatience = 4\n"
    )
