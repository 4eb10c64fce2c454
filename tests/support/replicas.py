"""Tiny random replicas of the layouts that others publish: their files, names, types and settings.

In: a folder. Out: the bundle in it, and a `Replica`, which embeds as the model's own pipeline does.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from miniclip.models.onnx_graph import quiet_tools
from tests.support.clip_files import MAX_TOKENS, PREPROCESSOR, TINY, write_tokenizer
from tests.support.drawing import WORDS

SIZE_PX = 64
IMAGE = torch.zeros(2, 3, SIZE_PX, SIZE_PX)
MEAN, STD = PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"]


@dataclass
class Replica:
    """A bundle, and the functions (texts or images -> unit rows) of the model that it was exported from."""

    folder: Path
    embed_texts: Callable[[Sequence[str]], np.ndarray]
    embed_images: Callable[[Sequence[Path]], np.ndarray]


class Graph(nn.Module):
    """Any function of tensors, with the modules that it uses."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]], *parts: nn.Module) -> None:
        super().__init__()
        self.forward, self.parts = function, nn.ModuleList(parts)


def save(path: Path, graph: nn.Module, outputs: list[str], external: bool = False, **inputs: Tensor) -> None:
    """Export with free batches, and free lengths of tokens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image_batch, batch, length = (torch.export.Dim(name) for name in ("images", "texts", "tokens"))
    shapes = {name: {0: image_batch} if own.ndim == 4 else {0: batch, 1: length} for name, own in inputs.items()}
    with quiet_tools():
        torch.onnx.export(
            graph.eval(),
            kwargs=inputs,
            f=path,
            dynamo=True,
            opset_version=18,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=outputs,
            external_data=external,
            verbose=False,
        )


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def scatter(*parts: nn.Module) -> None:
    """Weights large enough that every layer changes its input."""
    with torch.no_grad():
        for part in parts:
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.2)


def write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def word_tokenizer(folder: Path, **settings: object) -> PreTrainedTokenizerFast:
    """Words, an end token and padding, as SigLIP's: no lower case in `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<eos>", *WORDS])}
    rust = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 2)])
    rust.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"pad_token": "<pad>", **settings})
    return PreTrainedTokenizerFast(tokenizer_object=rust, pad_token="<pad>", padding_side="right")


def rgb(paths: Sequence[Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in paths]


def embed(function: Callable[..., Tensor], **inputs: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(unit(function(**inputs)).numpy())


def tiny_clip(folder: Path) -> CLIPModel:
    """A CLIP with OpenAI's kind of tokenizer, which is written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {"vocab_size": write_tokenizer(folder), "max_position_embeddings": MAX_TOKENS, "eos_token_id": 2, **TINY}
    vision = {"image_size": SIZE_PX, "patch_size": 16, **TINY}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    scatter(clip)
    return clip


def siglip(folder: Path) -> Replica:
    """onnx-community: `input_ids` alone, `pooler_output`, rows of one length, lower case by the settings only."""
    length = 12
    tokenizer = word_tokenizer(folder, do_lower_case=True, model_max_length=length)
    text = {"vocab_size": 64, "max_position_embeddings": length, "projection_size": 32, **TINY}
    torch.manual_seed(0)
    vision = {"image_size": SIZE_PX, "patch_size": 16, **TINY}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    scatter(model)
    model.config.save_pretrained(folder)
    outputs = ["last_hidden_state", "pooler_output"]

    def text_tower(input_ids: Tensor) -> tuple[Tensor, Tensor]:
        out = model.text_model(input_ids=input_ids)
        return out.last_hidden_state, out.pooler_output

    def vision_tower(pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        out = model.vision_model(pixel_values=pixel_values)
        return out.last_hidden_state, out.pooler_output

    ids = torch.ones(2, length, dtype=torch.int64)
    save(folder / "onnx/text_model.onnx", Graph(text_tower, model), outputs, input_ids=ids)
    save(folder / "onnx/vision_model.onnx", Graph(vision_tower, model), outputs, pixel_values=IMAGE)
    processor = SiglipImageProcessorPil(size={"height": SIZE_PX, "width": SIZE_PX}, resample=2)
    processor.save_pretrained(folder)

    def texts(values: Sequence[str]) -> np.ndarray:
        lower = [value.lower() for value in values]
        tokens = tokenizer(lower, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return embed(lambda input_ids: text_tower(input_ids)[1], input_ids=tokens["input_ids"])

    def images(paths: Sequence[Path]) -> np.ndarray:
        pixels = processor(rgb(paths), return_tensors="pt")["pixel_values"]
        return embed(lambda pixel_values: vision_tower(pixel_values)[1], pixel_values=pixels)

    return Replica(folder, texts, images)


def mobileclip(folder: Path) -> Replica:
    """Xenova: no mask and attention in both directions, so every row has all tokens, filled up with id 0."""
    clip = tiny_clip(folder)
    torch.manual_seed(1)
    tokens, places = nn.Embedding(clip.config.text_config.vocab_size, 32), torch.randn(MAX_TOKENS, 32)
    attention, projection = nn.MultiheadAttention(32, 2, batch_first=True), nn.Linear(32, 16, bias=False)
    parts = nn.ModuleList([tokens, attention, projection]).eval()

    def text_tower(input_ids: Tensor) -> Tensor:
        hidden = tokens(input_ids) + places[: input_ids.shape[1]]
        hidden = hidden + attention(hidden, hidden, hidden)[0]
        return projection(hidden[torch.arange(input_ids.shape[0]), input_ids.argmax(dim=1)])

    def vision_tower(pixel_values: Tensor) -> Tensor:
        return clip.visual_projection(clip.vision_model(pixel_values=pixel_values).pooler_output)

    ids = torch.ones(2, MAX_TOKENS, dtype=torch.int64)
    save(folder / "onnx/text_model.onnx", Graph(text_tower, parts), ["text_embeds"], input_ids=ids)
    save(folder / "onnx/vision_model.onnx", Graph(vision_tower, clip), ["image_embeds"], pixel_values=IMAGE)
    clip.config.save_pretrained(folder)
    settings = {**PREPROCESSOR, "resample": 2, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    write(folder / "preprocessor_config.json", settings)
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)

    def texts(values: Sequence[str]) -> np.ndarray:
        rows = tokenizer(list(values), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        filled = torch.tensor([[*row, *[0] * (MAX_TOKENS - len(row))] for row in rows])
        return embed(text_tower, input_ids=filled)

    def images(paths: Sequence[Path]) -> np.ndarray:
        return embed(vision_tower, pixel_values=processor(rgb(paths), return_tensors="pt")["pixel_values"])

    return Replica(folder, texts, images)


def immich(folder: Path) -> Replica:
    """immich-app: open_clip's settings, int32 `text` and `image`, one output without a known name."""
    clip = tiny_clip(folder / "textual")
    write(folder / "config.json", {"embed_dim": 16, "text_cfg": {"context_length": MAX_TOKENS}, "vision_cfg": {}})
    shape = {"size": [SIZE_PX, SIZE_PX], "mode": "RGB", "mean": MEAN, "std": STD, "fill_color": 0}
    write(folder / "visual/preprocess_cfg.json", {**shape, "interpolation": "bicubic", "resize_mode": "shortest"})

    def text_tower(text: Tensor) -> Tensor:
        return clip.text_projection(clip.text_model(input_ids=text.long()).pooler_output)

    def vision_tower(image: Tensor) -> Tensor:
        return clip.visual_projection(clip.vision_model(pixel_values=image).pooler_output)

    ids = torch.ones(2, MAX_TOKENS, dtype=torch.int32)
    save(folder / "textual/model.onnx", Graph(text_tower, clip), ["output"], text=ids)
    save(folder / "visual/model.onnx", Graph(vision_tower, clip), ["output"], image=IMAGE)
    tokenizer, processor = AutoTokenizer.from_pretrained(folder / "textual"), CLIPImageProcessorPil(**PREPROCESSOR)

    def texts(values: Sequence[str]) -> np.ndarray:
        padding = {"padding": "max_length", "truncation": True, "max_length": MAX_TOKENS}
        return embed(text_tower, text=tokenizer(list(values), **padding, return_tensors="pt")["input_ids"])

    def images(paths: Sequence[Path]) -> np.ndarray:
        return embed(vision_tower, image=processor(rgb(paths), return_tensors="pt")["pixel_values"])

    return Replica(folder, texts, images)


def jina(folder: Path) -> Replica:
    """jina-clip: both towers in one graph, its weights in a file beside it, and unit rows under names of their own."""
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
    """`model.onnx_data`, as optimum calls it."""
    import onnx

    model = onnx.load(path)
    for old in path.parent.iterdir():
        old.unlink()
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=256)


REPLICAS: dict[str, Callable[[Path], Replica]] = {
    "siglip": siglip,
    "mobileclip": mobileclip,
    "immich": immich,
    "jina": jina,
}
