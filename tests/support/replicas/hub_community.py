"""Replicas of the models of Xenova, onnx-community and others for transformers.js: two towers below `onnx/`."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, SiglipConfig, SiglipModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.support.clip_files import MAX_TOKENS, PREPROCESSOR, TINY
from tests.support.replicas.building import (
    IMAGE,
    SIZE_PX,
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


def clip(folder: Path) -> Replica:
    """Xenova/clip-vit-base-patch32: only `input_ids`, causal, and unneeded graphs beside the towers."""
    model = tiny_clip(folder)
    text, vision = clip_towers(model)
    save(folder / "onnx/text_model.onnx", Graph(text, model), ["text_embeds"], input_ids=torch.ones(2, 8).long())
    save(folder / "onnx/vision_model.onnx", Graph(vision, model), ["image_embeds"], pixel_values=IMAGE)
    for name in ("model", "model_quantized", "vision_model_q4", "text_model_uint8"):
        (folder / f"onnx/{name}.onnx").write_bytes(b"never opened")
    model.config.save_pretrained(folder)
    write(folder / "preprocessor_config.json", PREPROCESSOR)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def texts(values: Sequence[str]) -> np.ndarray:
        return embed(
            text, input_ids=tokenizer(list(values), padding=True, truncation=True, return_tensors="pt").input_ids
        )

    return Replica(folder, texts, image_pipeline(CLIPImageProcessorPil.from_pretrained(folder), vision))


def _siglip(folder: Path, outputs: list[str], pad_token: str, lower_case: bool) -> Replica:
    """Only `input_ids`, rows of one length, pooled at the last position: padding has an effect."""
    length = 12
    tokenizer = word_tokenizer(folder, pad_token, do_lower_case=lower_case, model_max_length=length)
    text = {"vocab_size": 64, "max_position_embeddings": length, "projection_size": 32, **TINY}
    torch.manual_seed(0)
    vision = {"image_size": SIZE_PX, "patch_size": 16, **TINY}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    scatter(model)
    model.config.save_pretrained(folder)

    def text_tower(input_ids: Tensor) -> tuple[Tensor, ...]:
        out = model.text_model(input_ids=input_ids)
        return tuple(out[name] for name in outputs)

    def vision_tower(pixel_values: Tensor) -> tuple[Tensor, ...]:
        out = model.vision_model(pixel_values=pixel_values)
        return tuple(out[name] for name in outputs)

    ids = torch.ones(2, length, dtype=torch.int64)
    save(folder / "onnx/text_model.onnx", Graph(text_tower, model), outputs, input_ids=ids)
    save(folder / "onnx/vision_model.onnx", Graph(vision_tower, model), outputs, pixel_values=IMAGE)
    processor = SiglipImageProcessorPil(size={"height": SIZE_PX, "width": SIZE_PX}, resample=2)
    processor.save_pretrained(folder)
    texts = padded_text_pipeline(
        tokenizer, lambda ids: text_tower(ids)[-1], length, str.lower if lower_case else lambda text: text
    )
    return Replica(folder, texts, image_pipeline(processor, lambda pixels: vision_tower(pixels)[-1]))


def siglip(folder: Path) -> Replica:
    """SigLIP with one output, padded with its end token."""
    return _siglip(folder, ["pooler_output"], "<eos>", lower_case=False)


def siglip2(folder: Path) -> Replica:
    """onnx-community's SigLIP 2: two outputs, a padding token, and lower case only in the settings."""
    return _siglip(folder, ["last_hidden_state", "pooler_output"], "<pad>", lower_case=True)


def mobileclip(folder: Path) -> Replica:
    """Xenova: no mask, and attention in both directions, so id 0 pads every row to the full length."""
    model = tiny_clip(folder)
    torch.manual_seed(1)
    tokens, places = nn.Embedding(model.config.text_config.vocab_size, 32), torch.randn(MAX_TOKENS, 32)
    attention, projection = nn.MultiheadAttention(32, 2, batch_first=True), nn.Linear(32, 16, bias=False)
    parts = nn.ModuleList([tokens, attention, projection]).eval()

    def text(input_ids: Tensor) -> Tensor:
        hidden = tokens(input_ids) + places[: input_ids.shape[1]]
        hidden = hidden + attention(hidden, hidden, hidden)[0]
        return projection(hidden[torch.arange(input_ids.shape[0]), input_ids.argmax(dim=1)])

    _, vision = clip_towers(model)
    ids = torch.ones(2, MAX_TOKENS, dtype=torch.int64)
    save(folder / "onnx/text_model.onnx", Graph(text, parts), ["text_embeds"], input_ids=ids)
    save(folder / "onnx/vision_model.onnx", Graph(vision, model), ["image_embeds"], pixel_values=IMAGE)
    model.config.save_pretrained(folder)
    settings = {**PREPROCESSOR, "resample": 2, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    write(folder / "preprocessor_config.json", settings)
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)

    def texts(values: Sequence[str]) -> np.ndarray:
        rows = tokenizer(list(values), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        filled = torch.tensor([[*row, *[0] * (MAX_TOKENS - len(row))] for row in rows])
        return embed(text, input_ids=filled)

    return Replica(folder, texts, image_pipeline(processor, vision))


def mobileclip2(folder: Path) -> Replica:
    """plhery/mobileclip2-onnx: each size has its own folder with a preprocessor; the tokenizer is above them."""
    replica = mobileclip(folder)
    inside = folder / "onnx/s0"
    inside.mkdir()
    for graph in (folder / "onnx").glob("*.onnx"):
        shutil.move(graph, inside / graph.name)
    shutil.move(folder / "preprocessor_config.json", inside / "preprocessor_config.json")
    replica.inside = "onnx/s0"
    return replica
