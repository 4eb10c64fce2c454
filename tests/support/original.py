"""A tiny model of the project miniCLIP_DL: its towers, its checkpoint, and the folders of its backbones."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from miniclip.errors import MiniClipError
from miniclip.models.import_checkpoint import import_checkpoint
from tests.support.tiny import write_tokenizer

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DIM = 12
State = dict[str, Tensor]
TEXTS = ["a red circle", "dog", "the big cat and two dogs on a square"]


class Bottleneck(nn.Module):
    """torchvision's block, version 1.5, with the stride in the 3x3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


class TorchvisionResNet(nn.Module):
    """A narrow ResNet with torchvision's names; the original replaced `fc` by nothing."""

    def __init__(self, depths: tuple[int, ...] = (1, 2, 3, 1), width: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        inputs, self.stages = 8, len(depths)
        for stage, depth in enumerate(depths):
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(inputs, width << stage, 2 if stage and not block else 1))
                inputs = 4 * (width << stage)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean(dim=(2, 3))


def shaken(model: nn.Module) -> nn.Module:
    """Random weights that affect the output, including the running statistics of batch norms."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.normal_(std=0.2)
                if name.endswith(("running_var", "layernorm.weight", "LayerNorm.weight")) or ".bn" in f".{name}":
                    value.abs_().add_(0.7)
    return model.eval()


def released_names(model: nn.Module, folder: Path) -> State:
    """The names of a transformers model's weights in files, which are those of transformers 4."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def projected(state: State, tower: str, features: Tensor) -> Tensor:
    """The original's heads, unit length, computed from the checkpoint itself."""
    get = {name.removeprefix(f"{tower}_encoder.projection."): value for name, value in state.items()}
    if "weight" in get:
        return functional.normalize(features @ get["weight"].T + get["bias"], dim=-1)
    projection = features @ get["projection.weight"].T + get["projection.bias"]
    x = functional.gelu(projection) @ get["fc.weight"].T + get["fc.bias"] + projection
    x = functional.layer_norm(x, (DIM,), get["layer_norm.weight"], get["layer_norm.bias"])
    return functional.normalize(x, dim=-1)


class Original:
    """The original's model: both towers, the state dict of its checkpoint, and folders of its backbones."""

    def __init__(self, folder: Path, vision_kind: str, linear: bool) -> None:
        torch.manual_seed(0)
        self.vision_spec, self.text_spec = folder / "vision", folder / "text"
        vit = hf.ViTModel(hf.ViTConfig(image_size=64, patch_size=16, **SIZE))
        self.vision = shaken(vit if vision_kind == "vit" else TorchvisionResNet())
        roberta = hf.RobertaConfig(vocab_size=40, max_position_embeddings=36, pad_token_id=0, **SIZE)
        self.text = shaken(hf.RobertaModel(roberta))
        vision_state = (
            released_names(self.vision, folder / "full-vit") if vision_kind == "vit" else self.vision.state_dict()
        )
        text_state = released_names(self.text, folder / "full-roberta")
        text_state["embeddings.position_ids"] = torch.arange(36)[None]
        self.state: State = {f"vision_encoder.model.{name}": value.clone() for name, value in vision_state.items()}
        self.state |= {f"text_encoder.model.{name}": value.clone() for name, value in text_state.items()}
        for tower, width in (("vision", 32 if vision_kind == "vit" else 128), ("text", 32)):
            prefix = f"{tower}_encoder.projection."
            shapes = {"weight": (DIM, width), "bias": (DIM,)}
            if not linear:
                shapes = {f"projection.{name}": shape for name, shape in shapes.items()}
                shapes |= {"fc.weight": (DIM, DIM), "fc.bias": (DIM,)}
                shapes |= {"layer_norm.weight": (DIM,), "layer_norm.bias": (DIM,)}
            self.state |= {prefix + name: torch.randn(shape) for name, shape in shapes.items()}
        self.state["temperature"] = torch.tensor(2.6592)
        self._write_specs(vit)

    def _write_specs(self, vit: nn.Module) -> None:
        """Write folders without weights, as on the hub: an old preprocessor, and a tokenizer without a pad token."""
        self.vision_spec.mkdir()
        vit.config.save_pretrained(self.vision_spec)
        preprocessor = {"size": 64, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "do_normalize": True}
        (self.vision_spec / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        write_tokenizer(self.text_spec)
        self.text.config.save_pretrained(self.text_spec)
        tokenizer = (self.text_spec / "tokenizer.json").read_text()
        (self.text_spec / "tokenizer.json").write_text(tokenizer.replace("[PAD]", "<pad>"))
        (self.text_spec / "tokenizer_config.json").write_text('{"model_max_length": 512}')

    def image_embeds(self, pixel_values: Tensor) -> Tensor:
        with torch.inference_mode():
            features = self.vision(pixel_values)
            features = features if isinstance(features, Tensor) else features.last_hidden_state[:, 0]
            return projected(self.state, "vision", features)

    def text_embeds(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        with torch.inference_mode():
            tokens = self.text(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return projected(self.state, "text", tokens[:, 0])

    def save(self, path: Path, change: Callable[[State], object] = lambda state: None) -> Path:
        state = dict(self.state)
        change(state)
        torch.save(state, path)
        return path

    def imported(self, checkpoint: Path, out: Path) -> str:
        return import_checkpoint(checkpoint, str(self.vision_spec), str(self.text_spec), out)

    def refusal(self, checkpoint: Path, out: Path) -> str:
        """The one-line error of an import, which must leave no file."""
        before = sorted(out.parent.iterdir())
        with pytest.raises(MiniClipError) as error:
            self.imported(checkpoint, out)
        assert sorted(out.parent.iterdir()) == before
        assert "\n" not in str(error.value)
        return str(error.value)
