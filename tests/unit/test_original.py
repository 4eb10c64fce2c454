"""Checkpoints of the original student project: as runs they embed as the original did, and anything else is refused."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run
from miniclip.models.import_checkpoint import import_checkpoint, logit_scale_of
from tests.support.cli import run_cli
from tests.support.tiny import write_tokenizer

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DIM = 12
State = dict[str, Tensor]
TEXTS = ["a red circle", "dog", "the big cat and two dogs on a square"]


class Bottleneck(nn.Module):
    """torchvision's block, version 1.5: the stride is that of the 3x3 convolution."""

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
    """torchvision's ResNet with its names, narrow; the original had put nothing in the place of `fc`."""

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
    """Random weights that show in the output, running statistics of the batch norms included."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.normal_(std=0.2)
                if name.endswith(("running_var", "layernorm.weight", "LayerNorm.weight")) or ".bn" in f".{name}":
                    value.abs_().add_(0.7)
    return model.eval()


def released_names(model: nn.Module, folder: Path) -> State:
    """The names that a transformers model's weights have in files, which are those of transformers 4."""
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
    """What the original had: both towers, the state dict of its checkpoint, and folders of its backbones."""

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
        """Folders without weights, as the hub has those files: an old preprocessor, a tokenizer that names no pad."""
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
        """The one line that an import ends with, which must leave nothing behind."""
        before = sorted(out.parent.iterdir())
        with pytest.raises(MiniClipError) as error:
            self.imported(checkpoint, out)
        assert sorted(out.parent.iterdir()) == before
        assert "\n" not in str(error.value)
        return str(error.value)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original(tmp_path_factory.mktemp("vit"), "vit", linear=False)


@pytest.mark.parametrize("linear", [False, True], ids=["mlp", "affine"])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_run_embeds_as_the_original_did(kind: str, linear: bool, tmp_path: Path) -> None:
    original = Original(tmp_path, kind, linear)
    original.imported(original.save(tmp_path / "best.pt"), tmp_path / "runs" / "old")
    run = load_run(tmp_path / "runs" / "old")
    assert (run.config.model.head, run.config.model.projection_dim) == ("affine" if linear else "mlp", DIM)
    encoders = run.encoders()
    pixel_values = torch.randn(3, 3, 64, 64) * torch.tensor([0.3, 1.0, 3.0]).view(3, 1, 1, 1)
    found = encoders.embed_pixels(pixel_values.numpy())
    np.testing.assert_allclose(found, original.image_embeds(pixel_values).numpy(), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3  # or any image would do
    input_ids, attention_mask = (torch.from_numpy(array) for array in run.tokenizer(TEXTS))
    expected = original.text_embeds(input_ids, attention_mask).numpy()
    np.testing.assert_allclose(encoders.encode_texts(TEXTS), expected, atol=1e-5)
    assert encoders.logit_scale == pytest.approx(2.6592)


def test_resnet_has_its_strides_where_torchvision_has_them(tmp_path: Path) -> None:
    original = Original(tmp_path, "resnet", linear=False)
    original.imported(original.save(tmp_path / "best.pt"), tmp_path / "run")
    backbone = load_run(tmp_path / "run").model.vision.backbone
    assert (backbone.config.depths, backbone.config.hidden_sizes) == ([1, 2, 3, 1], [16, 32, 64, 128])
    backbone.encoder.stages[1].layers[0].layer[0].convolution.stride = (2, 2)  # as in the paper: the first 1x1
    backbone.encoder.stages[1].layers[0].layer[1].convolution.stride = (1, 1)
    pixel_values = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        other = backbone(pixel_values).pooler_output.flatten(1)
        assert not torch.allclose(other, original.vision(pixel_values), atol=1e-2)


def test_names_of_transformers_5_open_as_well(vit: Original, tmp_path: Path) -> None:
    def renewed(state: State) -> None:
        for name in [name for name in state if name.startswith("vision_encoder.model.")]:
            del state[name]
        state |= {f"vision_encoder.model.{name}": value for name, value in vit.vision.state_dict().items()}

    assert "vision_encoder.model.encoder.layer.0.attention.attention.query.weight" in vit.state
    vit.imported(vit.save(tmp_path / "new.pt", renewed), tmp_path / "run")
    pixel_values = torch.randn(2, 3, 64, 64)
    found = load_run(tmp_path / "run").encoders().embed_pixels(pixel_values.numpy())
    np.testing.assert_allclose(found, vit.image_embeds(pixel_values).numpy(), atol=1e-5)


@pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict", "model"])
def test_a_wrapped_checkpoint_in_half_precision_opens(vit: Original, wrapper: str, tmp_path: Path) -> None:
    halves = {name: v.half() if v.is_floating_point() else v for name, v in vit.state.items()}
    torch.save({wrapper: halves, "epoch": 3, "loss": 0.5}, tmp_path / "best.pt")
    said = vit.imported(tmp_path / "best.pt", tmp_path / "run")
    assert said == "vit and roberta, mlp heads into 12 dimensions, logits times 14.3"
    assert {value.dtype for value in load_run(tmp_path / "run").model.state_dict().values()} == {torch.float32}


def test_preprocessing_and_tokenizer_are_those_of_the_specs(vit: Original, tmp_path: Path) -> None:
    """As the original's ViTImageProcessor and RobertaTokenizer read them: squashed, bilinear, padded with <pad>."""
    vit.imported(vit.save(tmp_path / "best.pt"), tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert (run.transform.height_px, run.transform.width_px, run.transform.resize_shortest_px) == (64, 64, None)
    assert (run.transform.mean, run.transform.resample) == ((0.4, 0.5, 0.6), 2)
    assert (run.tokenizer.pad_id, run.tokenizer.max_tokens) == (0, 35)  # of 36 positions one is before the first
    assert (run.config.model.vision_pooling, run.config.model.text_pooling) == ("cls", "cls")


def test_temperature_is_a_logarithm_or_in_zero_to_one() -> None:
    assert logit_scale_of(2.659) == 2.659
    assert logit_scale_of(0.07) == pytest.approx(math.log(1 / 0.07))
    assert logit_scale_of(1.0) == 0.0
    assert logit_scale_of(-0.5) == -0.5
    assert logit_scale_of(7.0) == logit_scale_of(0.001) == pytest.approx(math.log(100))
    with pytest.raises(MiniClipError, match="the temperature is nan"):
        logit_scale_of(math.nan)


def test_a_temperature_may_be_a_vector_of_one(vit: Original, tmp_path: Path) -> None:
    checkpoint = vit.save(tmp_path / "best.pt", lambda state: state.update(temperature=torch.tensor([0.05])))
    vit.imported(checkpoint, tmp_path / "run")
    assert load_run(tmp_path / "run").encoders().logit_scale == pytest.approx(math.log(20))


QUERY = "vision_encoder.model.encoder.layer.1.attention.attention.query.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: [s.pop(QUERY), s.pop(QUERY.replace("weight", "bias"))], f"lacks 2 of 88 weights, {QUERY} first"),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), "has unknown weights: 1, extra.weight first"),
        (lambda s: s.update({QUERY: torch.ones(32, 16)}), f"{QUERY} is (32, 16) torch.float32, not (32, 32)"),
        (lambda s: s.update({QUERY: torch.ones(32, 32, dtype=torch.int8)}), f"{QUERY} is (32, 32) torch.int8, not"),
        (lambda s: s.update(temperature=torch.ones(2)), "temperature is (2,)"),
        (lambda s: s.update(temperature=torch.tensor(math.inf)), "the temperature is inf"),
        (lambda s: s.pop("temperature"), "no checkpoint of the original MiniCLIP: it has no temperature"),
        (lambda s: s.pop("vision_encoder.projection.projection.weight"), "has no matrix vision_encoder.projection."),
        (lambda s: s.pop("text_encoder.projection.fc.bias"), "lacks 1 of 88 weights, text_encoder.projection.fc.bias"),
        (lambda s: s.update({QUERY: 3.0}), f"is no state dict: '{QUERY}' is no plain tensor"),
        (lambda s: s.update({QUERY: torch.eye(32, device="meta")}), f"'{QUERY}' is no plain tensor"),
        (lambda s: s.update({QUERY: torch.eye(32).to_sparse()}), f"is no state dict: '{QUERY}' is no plain tensor"),
        (lambda s: s.update({"vision_encoder.model.conv1.weight": torch.ones(())}), "has no matrix vision_encoder."),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(
    vit: Original, change: Callable[[State], object], words: str, tmp_path: Path
) -> None:
    assert words in vit.refusal(vit.save(tmp_path / "best.pt", change), tmp_path / "run")


class Payload:
    """What a hostile pickle would run."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("pwned"),))


def test_nothing_but_tensors_is_unpickled(vit: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("pickle.pt", Payload()), ("model.pt", nn.Linear(2, 2))):
        torch.save({"temperature": value}, tmp_path / name)
        assert "is no file of plain weights, and nothing else is opened" in vit.refusal(tmp_path / name, Path("run"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(64), b"\x80\x02c"])
def test_a_file_that_is_no_checkpoint_is_one_line(vit: Original, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    assert "is no file of plain weights" in vit.refusal(tmp_path / "best.pt", tmp_path / "run")


def test_a_checkpoint_that_is_not_there_or_holds_a_tensor_is_one_line(vit: Original, tmp_path: Path) -> None:
    assert "No such file" in vit.refusal(tmp_path / "none.pt", tmp_path / "run")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    assert "no checkpoint of the original" in vit.refusal(tmp_path / "tensor.pt", tmp_path / "run")


def test_a_run_that_is_there_stays(vit: Original, tmp_path: Path) -> None:
    checkpoint, run = vit.save(tmp_path / "best.pt"), tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    assert vit.refusal(checkpoint, run) == f"{run} holds a run already, or something else; choose another --out"
    assert [path.name for path in run.iterdir()] == ["config.json"]
    assert "holds a run already" in vit.refusal(checkpoint, checkpoint)
    with pytest.raises(MiniClipError, match="cannot write"):
        vit.imported(checkpoint, checkpoint / "run")


def test_a_backbone_of_another_kind_or_without_its_files_is_one_line(vit: Original, tmp_path: Path) -> None:
    checkpoint = vit.save(tmp_path / "best.pt")

    def said(vision: Path, text: Path) -> str:
        with pytest.raises(MiniClipError) as error:
            import_checkpoint(checkpoint, str(vision), str(text), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return str(error.value)

    assert "--text: " in said(vit.vision_spec, vit.vision_spec)
    assert "is no roberta, as the checkpoint has" in said(vit.vision_spec, vit.vision_spec)
    assert said(tmp_path / "nowhere", vit.text_spec) == f"no backbone folder at {tmp_path / 'nowhere'}"
    bare = shutil.copytree(vit.text_spec, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in said(vit.vision_spec, bare)
    bare = shutil.copytree(vit.vision_spec, tmp_path / "bare-vision")
    (bare / "preprocessor_config.json").unlink()
    assert "cannot read" in said(bare, vit.text_spec)


def test_import_then_evaluate_and_export(vit: Original, captioned_folder: Path, tmp_path: Path) -> None:
    checkpoint, run = vit.save(tmp_path / "best.pt"), tmp_path / "runs" / "old"
    flags = ["--vision", vit.vision_spec, "--text", vit.text_spec, "--out", run]
    done = run_cli("miniclip.cli", "import", checkpoint, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"vit and roberta, mlp heads into 12 dimensions, logits times 14.3; run in {run}\n"
    done = run_cli("miniclip.cli", "import", checkpoint, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {run} holds a run already")
    done = run_cli("miniclip.cli", "evaluate", "--run", run, "--data", captioned_folder, "--split", "val")
    assert done.returncode == 0, done.stderr
    assert "12 images" in done.stdout
    done = run_cli(
        "export", "--run", run, "--out", tmp_path / "bundle", "--precision", "fp32", "--data", captioned_folder
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line_itself_loads_no_torch() -> None:
    code = "import sys, miniclip.cli.main as cli; cli.parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
