"""Tiny whole models with random weights, with the files of each model on the hub."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.support.architectures import randomise
from tests.support.clip_files import MAX_TOKENS, PREPROCESSOR, TINY, write_tokenizer
from tests.support.drawing import WORDS
from tests.support.replicas.building import MEAN, SIZE_PX, STD, scatter, word_tokenizer, write

Tokens = dict[str, torch.Tensor]

IMAGES = {"image_size": SIZE_PX, "patch_size": 16}
SQUASHED = {
    "size": {"height": SIZE_PX, "width": SIZE_PX},
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


@dataclass(frozen=True)
class WholeModel:
    """A model, and its own tokens of some texts."""

    model: Any
    tokens: Callable[[Sequence[str]], Tokens]


def _saved(folder: Path, model: Any, preprocessor: dict[str, object]) -> Any:
    torch.manual_seed(0)
    scatter(model)
    if any(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules()):
        randomise(model.vision_model)  # with initial statistics, features would be too small for half precision
    model.eval().save_pretrained(folder)
    write(folder / "preprocessor_config.json", preprocessor)
    return model


def _of_exact_length(tokenizer: Any, length: int) -> Callable[[Sequence[str]], Tokens]:
    """Like SigLIP's processor: lower case, and each row padded to the length; the model gets no mask."""

    def tokens(texts: Sequence[str]) -> Tokens:
        lower = [text.lower() for text in texts]
        rows = tokenizer(lower, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return {"input_ids": rows["input_ids"]}

    return tokens


def _padded(tokenizer: Any) -> Callable[[Sequence[str]], Tokens]:
    def tokens(texts: Sequence[str]) -> Tokens:
        rows = tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        return {name: rows[name] for name in ("input_ids", "attention_mask")}

    return tokens


def siglip(folder: Path) -> WholeModel:
    """Its config pads with 1 and its tokenizer with 0, as in SigLIP 2."""
    tokenizer = word_tokenizer(folder, do_lower_case=True, model_max_length=12)
    text = {"vocab_size": 64, "max_position_embeddings": 12, "projection_size": 32, "pad_token_id": 1, **TINY}
    config = hf.SiglipConfig(text_config=text, vision_config={**IMAGES, **TINY})
    return WholeModel(_saved(folder, hf.SiglipModel(config), SQUASHED), _of_exact_length(tokenizer, 12))


def siglip2(folder: Path) -> WholeModel:
    """The version for images of any shape, which takes patches."""
    tokenizer = word_tokenizer(folder, do_lower_case=True)  # without a maximum length
    text = {"vocab_size": 64, "max_position_embeddings": 12, "projection_size": 32, **TINY}
    config = hf.Siglip2Config(text_config=text, vision_config={"num_patches": 16, "patch_size": 16, **TINY})
    patches = {"max_num_patches": 16, "patch_size": 16, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return WholeModel(_saved(folder, hf.Siglip2Model(config), patches), _of_exact_length(tokenizer, 12))


def altclip(folder: Path) -> WholeModel:
    tokenizer = word_tokenizer(folder, model_max_length=MAX_TOKENS)
    text = {"vocab_size": 64, "max_position_embeddings": MAX_TOKENS + 1, "pad_token_id": 0, "project_dim": 16, **TINY}
    config = hf.AltCLIPConfig(text_config=text, vision_config={**IMAGES, **TINY}, projection_dim=16)
    return WholeModel(_saved(folder, hf.AltCLIPModel(config), PREPROCESSOR), _padded(tokenizer))


def chinese_clip(folder: Path) -> WholeModel:
    """It has a vocabulary instead of a `tokenizer.json`."""
    tokenizer = _bert_tokenizer(folder)
    text = {"vocab_size": 64, "max_position_embeddings": MAX_TOKENS, **TINY}
    config = hf.ChineseCLIPConfig(text_config=text, vision_config={**IMAGES, **TINY}, projection_dim=16)
    return WholeModel(_saved(folder, hf.ChineseCLIPModel(config), {**PREPROCESSOR}), _padded(tokenizer))


def metaclip_2(folder: Path) -> WholeModel:
    folder.mkdir()
    ids = write_tokenizer(folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    text = {"vocab_size": ids, "max_position_embeddings": MAX_TOKENS, "eos_token_id": ids - 1, **TINY}
    config = hf.MetaClip2Config(text_config=text, vision_config={**IMAGES, **TINY}, projection_dim=16)
    return WholeModel(_saved(folder, hf.MetaClip2Model(config), PREPROCESSOR), _padded(tokenizer))


def align(folder: Path) -> WholeModel:
    """An EfficientNet without a projection, a BERT whose projection has a bias, and a crop of squashed images."""
    tokenizer = _bert_tokenizer(folder)
    text = {"vocab_size": 64, "max_position_embeddings": MAX_TOKENS, **TINY}
    vision = {"image_size": SIZE_PX, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}
    model = hf.AlignModel(hf.AlignConfig(text_config=text, vision_config=vision, projection_dim=80))
    crop = {"size": {"height": 76, "width": 76}, "crop_size": {"height": SIZE_PX, "width": SIZE_PX}}
    crop |= {"do_center_crop": True, "resample": 2, "rescale_factor": 1 / 127.5, "rescale_offset": True}
    own = {"do_normalize": False, "include_top": False, "image_mean": MEAN, "image_std": STD}
    return WholeModel(_saved(folder, model, {**crop, **own}), _padded(tokenizer))


def _bert_tokenizer(folder: Path) -> Any:
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ",", "."]
    (folder / "vocab.txt").write_text("\n".join(words))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": MAX_TOKENS})
    return hf.AutoTokenizer.from_pretrained(folder, local_files_only=True)


WHOLE_MODELS: dict[str, Callable[[Path], WholeModel]] = {
    "siglip": siglip,
    "siglip2": siglip2,
    "altclip": altclip,
    "chinese_clip": chinese_clip,
    "metaclip_2": metaclip_2,
    "align": align,
}
