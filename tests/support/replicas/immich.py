"""Replicas of the models of immich-app: open_clip's settings, `textual/` and `visual/`, int32 tokens, one output."""

import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.support.clip_files import MAX_TOKENS, PREPROCESSOR, TINY
from tests.support.replicas.building import (
    IMAGE,
    MEAN,
    SIZE_PX,
    STD,
    Graph,
    Replica,
    clip_towers,
    embed,
    image_pipeline,
    padded_text_pipeline,
    save,
    scatter,
    tiny_clip,
    word_tokenizer,
    write,
)

LENGTH = 12


def _write_visual(folder: Path, vision: Callable[[Tensor], Tensor], part: nn.Module, **settings: object) -> None:
    shape = {"size": [SIZE_PX, SIZE_PX], "mode": "RGB", "mean": MEAN, "std": STD, "fill_color": 0}
    shape |= {"interpolation": "bicubic", "resize_mode": "shortest"}
    write(folder / "visual/preprocess_cfg.json", {**shape, **settings})
    save(folder / "visual/model.onnx", Graph(lambda image: vision(image), part), ["output"], image=IMAGE)


def clip(folder: Path) -> Replica:
    """immich-app/ViT-B-32__openai."""
    model = tiny_clip(folder / "textual")
    write(folder / "config.json", {"embed_dim": 16, "text_cfg": {"context_length": MAX_TOKENS}, "vision_cfg": {}})
    embed_tokens, vision = clip_towers(model)
    ids = torch.ones(2, MAX_TOKENS, dtype=torch.int32)
    save(folder / "textual/model.onnx", Graph(lambda text: embed_tokens(text.long()), model), ["output"], text=ids)
    _write_visual(folder, vision, model)
    tokenizer = AutoTokenizer.from_pretrained(folder / "textual")
    texts = padded_text_pipeline(tokenizer, embed_tokens, MAX_TOKENS)
    return Replica(folder, texts, image_pipeline(CLIPImageProcessorPil(**PREPROCESSOR), vision))


def siglip2(folder: Path) -> Replica:
    """immich-app/ViT-B-16-SigLIP2__webli: squashed images, texts without capitals and punctuation, all padded."""
    tokenizer = word_tokenizer(folder / "textual", model_max_length=64)
    model = tiny_clip(folder / "unused")
    text_cfg = {"context_length": LENGTH, "tokenizer_kwargs": {"clean": "canonicalize"}}
    write(folder / "config.json", {"embed_dim": 16, "text_cfg": text_cfg, "vision_cfg": {}})
    torch.manual_seed(1)
    tokens, projection = nn.Embedding(64, 32), nn.Linear(32 * LENGTH, 16)
    scatter(tokens, projection)

    def embed_tokens(text: Tensor) -> Tensor:  # every position counts, including padding
        return projection(tokens(text.long()).flatten(1))

    _, vision = clip_towers(model)
    parts = nn.ModuleList([tokens, projection])
    ids = torch.ones(2, LENGTH, dtype=torch.int32)
    save(folder / "textual/model.onnx", Graph(embed_tokens, parts), ["output"], text=ids)
    _write_visual(folder, vision, model, resize_mode="squash", mean=[0.5] * 3, std=[0.5] * 3)
    processor = SiglipImageProcessorPil(size={"height": SIZE_PX, "width": SIZE_PX}, resample=3)
    return Replica(
        folder, padded_text_pipeline(tokenizer, embed_tokens, LENGTH, _canonical), image_pipeline(processor, vision)
    )


def _canonical(text: str) -> str:
    """open_clip's `canonicalize_text`, step by step."""
    text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", text.lower()).strip()


def xlm_roberta(folder: Path) -> Replica:
    """immich-app/XLM-Roberta-Large-Vit-B-32: tokens and their mask, both int32."""
    tokenizer = word_tokenizer(folder / "textual", model_max_length=LENGTH)
    model = tiny_clip(folder / "unused")
    write(folder / "config.json", {"embed_dim": 16, "text_cfg": {"context_length": LENGTH}, "vision_cfg": {}})
    torch.manual_seed(1)
    config = XLMRobertaConfig(vocab_size=64, max_position_embeddings=40, pad_token_id=0, **TINY)
    roberta, projection = XLMRobertaModel(config, add_pooling_layer=False).eval(), nn.Linear(32, 16)
    scatter(roberta)

    def text(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = roberta(input_ids=input_ids.long(), attention_mask=attention_mask.long()).last_hidden_state
        weight = attention_mask[..., None].float()
        return projection((hidden * weight).sum(dim=1) / weight.sum(dim=1))

    ids = torch.ones(3, LENGTH, dtype=torch.int32)
    graph = Graph(text, roberta, projection)
    save(folder / "textual/model.onnx", graph, ["output"], input_ids=ids, attention_mask=ids.clone())
    _, vision = clip_towers(model)
    _write_visual(folder, vision, model)

    def texts(values: Sequence[str]) -> np.ndarray:
        tokens = tokenizer(list(values), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        return embed(text, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])

    return Replica(folder, texts, image_pipeline(CLIPImageProcessorPil(**PREPROCESSOR), vision))
