"""Checkpoints of the original student project: as runs, they embed like the original; other files are refused."""

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run
from miniclip.models.import_checkpoint import import_checkpoint, logit_scale_of
from tests.support.cli import run_cli
from tests.support.original import DIM, TEXTS, Original, State


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original(tmp_path_factory.mktemp("vit"), "vit", linear=False)


@pytest.mark.parametrize("linear", [False, True], ids=["mlp", "affine"])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_run_embeds_like_the_original(kind: str, linear: bool, tmp_path: Path) -> None:
    original = Original(tmp_path, kind, linear)
    original.imported(original.save(tmp_path / "best.pt"), tmp_path / "runs" / "old")
    run = load_run(tmp_path / "runs" / "old")
    assert (run.config.model.head, run.config.model.projection_dim) == ("affine" if linear else "mlp", DIM)
    encoders = run.encoders()
    pixel_values = torch.randn(3, 3, 64, 64) * torch.tensor([0.3, 1.0, 3.0]).view(3, 1, 1, 1)
    found = encoders.embed_pixels(pixel_values.numpy())
    np.testing.assert_allclose(found, original.image_embeds(pixel_values).numpy(), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3  # otherwise any image would pass
    input_ids, attention_mask = (torch.from_numpy(array) for array in run.tokenizer(TEXTS))
    expected = original.text_embeds(input_ids, attention_mask).numpy()
    np.testing.assert_allclose(encoders.encode_texts(TEXTS), expected, atol=1e-5)
    assert encoders.logit_scale == pytest.approx(2.6592)


def test_resnet_has_the_strides_of_torchvision(tmp_path: Path) -> None:
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


def test_preprocessing_and_tokenizer_come_from_the_specs(vit: Original, tmp_path: Path) -> None:
    """As in the original's ViTImageProcessor and RobertaTokenizer: squashed, bilinear, padded with <pad>."""
    vit.imported(vit.save(tmp_path / "best.pt"), tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert (run.transform.height_px, run.transform.width_px, run.transform.resize_shortest_px) == (64, 64, None)
    assert (run.transform.mean, run.transform.resample) == ((0.4, 0.5, 0.6), 2)
    assert (run.tokenizer.pad_id, run.tokenizer.max_tokens) == (0, 35)  # one of 36 positions is unused
    assert (run.config.model.vision_pooling, run.config.model.text_pooling) == ("cls", "cls")


def test_a_temperature_is_a_logarithm_or_between_zero_and_one() -> None:
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
        (lambda s: s.pop("temperature"), "is neither a checkpoint of the original MiniCLIP, which has"),
        (lambda s: s.pop("vision_encoder.projection.projection.weight"), "has no matrix vision_encoder.projection."),
        (lambda s: s.pop("text_encoder.projection.fc.bias"), "lacks 1 of 88 weights, text_encoder.projection.fc.bias"),
        (lambda s: s.update({QUERY: 3.0}), f"is not a state dict: '{QUERY}' is not a plain tensor"),
        (lambda s: s.update({QUERY: torch.eye(32, device="meta")}), f"'{QUERY}' is not a plain tensor"),
        (lambda s: s.update({QUERY: torch.eye(32).to_sparse()}), f"'{QUERY}' is not a plain tensor"),
        (lambda s: s.update({"vision_encoder.model.conv1.weight": torch.ones(())}), "has no matrix vision_encoder."),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(
    vit: Original, change: Callable[[State], object], words: str, tmp_path: Path
) -> None:
    assert words in vit.refusal(vit.save(tmp_path / "best.pt", change), tmp_path / "run")


class Payload:
    """Code in a hostile pickle."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("pwned"),))


def test_only_tensors_are_unpickled(vit: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("pickle.pt", Payload()), ("model.pt", nn.Linear(2, 2))):
        torch.save({"temperature": value}, tmp_path / name)
        assert "is not a file of plain weights only, so it is not opened" in vit.refusal(tmp_path / name, Path("run"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(64), b"\x80\x02c"])
def test_a_file_without_a_checkpoint_is_one_line(vit: Original, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    assert "is not a file of plain weights" in vit.refusal(tmp_path / "best.pt", tmp_path / "run")


def test_a_missing_file_or_a_lone_tensor_is_one_line(vit: Original, tmp_path: Path) -> None:
    assert "No such file" in vit.refusal(tmp_path / "none.pt", tmp_path / "run")
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    assert "neither a checkpoint of the original" in vit.refusal(tmp_path / "tensor.pt", tmp_path / "run")


def test_an_existing_run_is_not_replaced(vit: Original, tmp_path: Path) -> None:
    checkpoint, run = vit.save(tmp_path / "best.pt"), tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    assert vit.refusal(checkpoint, run) == f"{run} already holds files; choose another --out"
    assert [path.name for path in run.iterdir()] == ["config.json"]
    assert "already holds files" in vit.refusal(checkpoint, checkpoint)
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
    assert "is not a roberta model" in said(vit.vision_spec, vit.vision_spec)
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
    assert done.stderr.startswith(f"error: {run} already holds files")
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
