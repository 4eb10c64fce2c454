"""A replica of jina-clip: both towers in one graph, its weights in a file beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.support.clip_files import PREPROCESSOR, TINY
from tests.support.replicas.building import (
    IMAGE,
    MEAN,
    SIZE_PX,
    STD,
    Graph,
    Replica,
    embed,
    rgb,
    save,
    scatter,
    tiny_clip,
    unit,
    word_tokenizer,
    write,
)


def jina(folder: Path) -> Replica:
    """jina-clip: both towers in one graph, weights in a file beside it, and outputs of unit length with other names."""
    tokenizer = word_tokenizer(folder, model_max_length=24)
    clip = tiny_clip(folder / "unused")
    torch.manual_seed(1)
    bert = BertModel(BertConfig(vocab_size=64, **TINY), add_pooling_layer=False).eval()
    to_text = nn.Linear(32, 16)
    scatter(bert)
    settings = {"size": SIZE_PX, "mean": MEAN, "std": STD, "fill_color": 0, "resize_mode": "shortest"}
    settings |= {"interpolation": "bicubic", "image_processor_type": "JinaCLIPImageProcessor"}
    write(folder / "preprocessor_config.json", settings)
    write(folder / "config.json", {"model_type": "jina_clip"})

    def text_tower(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask[..., None].float()
        return to_text((hidden * weight).sum(dim=1) / weight.sum(dim=1))

    def vision_tower(pixel_values: Tensor) -> Tensor:
        return clip.visual_projection(clip.vision_model(pixel_values=pixel_values).pooler_output)

    def both(input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> tuple[Tensor, ...]:
        text, image = text_tower(input_ids, attention_mask), vision_tower(pixel_values)
        return text, image, unit(text), unit(image)

    outputs = ["text_embeddings", "image_embeddings", "l2norm_text_embeddings", "l2norm_image_embeddings"]
    ids = torch.ones(3, 5, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": ids.clone(), "pixel_values": IMAGE}
    save(folder / "onnx/model.onnx", Graph(both, bert, to_text, clip), outputs, external=True, **inputs)
    _rename_data(folder / "onnx/model.onnx")
    processor = CLIPImageProcessorPil(**PREPROCESSOR)

    def texts(values: Sequence[str]) -> np.ndarray:
        tokens = tokenizer(list(values), padding=True, truncation=True, max_length=24, return_tensors="pt")
        return embed(text_tower, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])

    def images(paths: Sequence[Path]) -> np.ndarray:
        return embed(vision_tower, pixel_values=processor(rgb(paths), return_tensors="pt")["pixel_values"])

    return Replica(folder, texts, images)


def _rename_data(path: Path) -> None:
    """Rename the weights to `model.onnx_data`, like optimum."""
    model = onnx.load(path)
    for old in path.parent.iterdir():
        old.unlink()
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=256)
