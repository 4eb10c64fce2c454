"""The parts of all replicas: tiny models, tokenizers, and their export.

In: parts of PyTorch. Out: files as others publish them, and a `Replica`, which embeds as the model's own pipeline does.
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
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

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
    inside: str = ""  # the bundle's folder in its repository


class Graph(nn.Module):
    """A function of tensors, with its modules."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]], *parts: nn.Module) -> None:
        super().__init__()
        self.forward, self.parts = function, nn.ModuleList(parts)


def save(path: Path, graph: nn.Module, outputs: list[str], external: bool = False, **inputs: Tensor) -> None:
    """Export with a dynamic batch and a dynamic number of tokens."""
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


def word_tokenizer(folder: Path, pad_token: str = "<pad>", **settings: object) -> PreTrainedTokenizerFast:
    """A tokenizer with words, an end token and padding, like SigLIP's: no lower case in `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<eos>", *WORDS])}
    rust = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    rust.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 2)])
    rust.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"pad_token": pad_token, **settings})
    return PreTrainedTokenizerFast(tokenizer_object=rust, pad_token=pad_token, padding_side="right")


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


def clip_towers(clip: CLIPModel) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """`input_ids` and `pixel_values` to embeddings, not of unit length."""

    def text(input_ids: Tensor) -> Tensor:
        return clip.text_projection(clip.text_model(input_ids=input_ids).pooler_output)

    def vision(pixel_values: Tensor) -> Tensor:
        return clip.visual_projection(clip.vision_model(pixel_values=pixel_values).pooler_output)

    return text, vision


def image_pipeline(processor: object, tower: Callable[[Tensor], Tensor]) -> Callable[[Sequence[Path]], np.ndarray]:
    """Paths to unit rows, by a processor of transformers."""

    def images(paths: Sequence[Path]) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(unit(tower(processor(rgb(paths), return_tensors="pt")["pixel_values"])).numpy())

    return images


def padded_text_pipeline(
    tokenizer: PreTrainedTokenizerFast,
    tower: Callable[[Tensor], Tensor],
    length: int,
    clean: Callable[[str], str] = lambda text: text,
) -> Callable[[Sequence[str]], np.ndarray]:
    """Texts to unit rows, every row padded to `length`."""

    def texts(values: Sequence[str]) -> np.ndarray:
        padding = {"padding": "max_length", "truncation": True, "max_length": length}
        tokens = tokenizer([clean(value) for value in values], **padding, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            return np.asarray(unit(tower(tokens)).numpy())

    return texts
