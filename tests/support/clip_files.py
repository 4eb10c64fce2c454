"""Tokenizer and preprocessor files of a tiny CLIP, in the form of OpenAI's on the hub."""

import json
from pathlib import Path

from transformers import CLIPTokenizer

MAX_TOKENS = 24

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

LETTERS = "abcdefghijklmnopqrstuvwxyz.,'"

MERGES = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]

PREPROCESSOR = {
    "crop_size": {"height": 64, "width": 64},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 64},
}


def write_tokenizer(folder: Path) -> int:
    """Write byte pairs with an end-of-word mark and the end token as padding, as OpenAI does; returns their number."""
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *("".join(pair) for pair in MERGES)]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocabulary, MERGES, model_max_length=MAX_TOKENS).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, MERGES)]))
    (folder / "special_tokens_map.json").write_text('{"pad_token": "<|endoftext|>"}')
    return len(vocabulary)
