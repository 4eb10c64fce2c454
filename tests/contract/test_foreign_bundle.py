"""A CLIP model in the layout of the hub's community exports works without conversion.

It differs from our bundles: it has no manifest, its text tower takes only `input_ids`, its towers have a second output
and rows of any length, tokenizer and crop are OpenAI's, one precision has only one tower, and there are unneeded files.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import (
    CLIPImageProcessorPil,
)  # the one that needs no torchvision

from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.models.onnx_graph import quiet_tools
from tests.support.cli import run_cli
from tests.support.clip_files import MAX_TOKENS, PREPROCESSOR, TINY, write_tokenizer

TOLERANCE = 1e-5
TEXTS = ["a red circle", "A photo of a DOG.", "cat", "", "the dog's cat, on  blue squares", "a far too long text " * 9]


class TextTower(nn.Module):
    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.tower, self.projection = clip.text_model, clip.text_projection

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        out = self.tower(input_ids=input_ids)
        return self.projection(out.pooler_output), out.last_hidden_state


class VisionTower(nn.Module):
    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.tower, self.projection = clip.vision_model, clip.visual_projection

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        out = self.tower(pixel_values=pixel_values)
        return self.projection(out.pooler_output), out.last_hidden_state


def export(tower: nn.Module, inputs: dict[str, Tensor], axes: tuple[str, ...], output: str, path: Path) -> None:
    names = {name: dict(enumerate(map(torch.export.Dim, axes))) for name in inputs}
    with quiet_tools():
        torch.onnx.export(
            tower.eval(),
            kwargs=inputs,
            f=path,
            dynamo=True,
            opset_version=18,
            dynamic_shapes=names,
            input_names=list(inputs),
            output_names=[output, "last_hidden_state"],
            external_data=False,
            verbose=False,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the exported model."""
    return tmp_path_factory.mktemp("others") / "clip-tiny"


@pytest.fixture(scope="module")
def clip(folder: Path) -> CLIPModel:
    """The PyTorch model, exported to `folder`."""
    (folder / "onnx").mkdir(parents=True)
    text = {"vocab_size": write_tokenizer(folder), "max_position_embeddings": MAX_TOKENS, "eos_token_id": 2, **TINY}
    vision = {"image_size": 64, "patch_size": 16, **TINY}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.ndim > 1:  # with initial weights, a layer hardly changes its input
                parameter.normal_(std=0.2)
    input_ids = torch.full((2, 8), text["vocab_size"] - 1)
    export(TextTower(clip), {"input_ids": input_ids}, ("b", "n"), "text_embeds", folder / "onnx/text_model.onnx")
    pixel_values = {"pixel_values": torch.zeros(2, 3, 64, 64)}
    export(VisionTower(clip), pixel_values, ("b",), "image_embeds", folder / "onnx/vision_model.onnx")
    clip.config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    for name in ("vision_model_quantized", "vision_model_q4f16", "model", "model_quantized"):
        (folder / f"onnx/{name}.onnx").write_bytes(b"never opened")
    (folder / "quantize_config.json").write_text("{}")
    return clip


@pytest.fixture(scope="module")
def encoders(clip: CLIPModel, folder: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(folder), "cpu", threads=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> list[Path]:
    """Wide, tall and square images; some edges are multiples of 64 pixels, others are not."""
    folder = tmp_path_factory.mktemp("crops")
    for number, size in enumerate([(96, 80), (80, 99), (64, 64), (127, 70), (40, 33), (130, 65)]):
        noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return sorted(folder.iterdir()) + sorted(image_folder.glob("*.png"))


def torch_texts(clip: CLIPModel, folder: Path, texts: list[str]) -> np.ndarray:
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return clip(**tokens, pixel_values=torch.zeros(1, 3, 64, 64)).text_embeds.numpy()


def torch_images(clip: CLIPModel, folder: Path, paths: list[Path]) -> np.ndarray:
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pixel_values = processor([Image.open(path).convert("RGB") for path in paths], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return clip(input_ids=torch.zeros(1, 3, dtype=torch.int64), pixel_values=pixel_values).image_embeds.numpy()


def assert_same_unit_rows(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() < TOLERANCE
    assert np.abs(ours - theirs).max() < TOLERANCE
    assert (theirs @ theirs.T)[~np.eye(len(theirs), dtype=bool)].max() < 0.999  # a swapped row would show


def test_an_incomplete_precision_is_not_offered_and_no_hash_is_checked(encoders: OnnxEncoders) -> None:
    assert encoders.bundle.precisions == ["fp32"]
    assert encoders.running_on.endswith("the bundle has no manifest, so its files are unchecked")
    assert (encoders.dim, encoders.tokenizer.max_tokens) == (16, MAX_TOKENS)
    assert encoders.logit_scale == pytest.approx(np.log(100), abs=1e-3)


def test_towers_are_those_of_others(encoders: OnnxEncoders, folder: Path) -> None:
    """Each tower has one input, two outputs, and rows that do not have unit length."""
    feeds = {"text": {"input_ids": encoders.tokenizer(TEXTS)[0]}}
    feeds["vision"] = {"pixel_values": np.ones((2, 3, 64, 64), dtype=np.float32)}
    for tower, feed in feeds.items():
        session = ort.InferenceSession(folder / f"onnx/{tower}_model.onnx", providers=["CPUExecutionProvider"])
        assert [node.name for node in session.get_inputs()] == list(feed)
        assert [node.name for node in session.get_outputs()][1:] == ["last_hidden_state"]
        assert np.abs(np.linalg.norm(session.run(None, feed)[0], axis=1) - 1).min() > 0.1


@pytest.mark.parametrize("batch_size", [64, 2])
def test_text_embeddings_equal_those_of_torch(
    encoders: OnnxEncoders, clip: CLIPModel, folder: Path, batch_size: int
) -> None:
    assert_same_unit_rows(encoders.encode_texts(TEXTS, batch_size), torch_texts(clip, folder, TEXTS))


@pytest.mark.parametrize("batch_size", [16, 5])
def test_image_embeddings_equal_those_of_torch(
    encoders: OnnxEncoders, clip: CLIPModel, folder: Path, images: list[Path], batch_size: int
) -> None:
    rows, embeds = encoders.encode_images(images, batch_size=batch_size)
    assert rows.tolist() == list(range(len(images)))
    assert_same_unit_rows(embeds, torch_images(clip, folder, images))


def test_commands_index_and_search_with_it(clip: CLIPModel, folder: Path, images: list[Path], tmp_path: Path) -> None:
    """`miniclip index` and `miniclip search` rank the images as the PyTorch model does."""
    made = run_cli("miniclip.cli", "index", images[0].parent, "--bundle", folder, "--out", tmp_path / "index")
    assert made.returncode == 0, made.stderr
    found = run_cli("miniclip.cli", "search", "a red circle", "--index", tmp_path / "index", "--json")
    assert found.returncode == 0, found.stderr
    results = json.loads(found.stdout)["results"]
    paths = sorted(images[0].parent.iterdir())
    scores = torch_images(clip, folder, paths) @ torch_texts(clip, folder, ["a red circle"])[0]
    assert np.diff(np.sort(scores)).min() > 1e-4  # so that only one order is correct
    assert [Path(hit["path"]) for hit in results] == [paths[row] for row in np.argsort(-scores)]
    assert [hit["score"] for hit in results] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-4)
