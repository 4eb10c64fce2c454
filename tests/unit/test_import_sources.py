"""Checkpoints by name from the hub, the two projections of a CLIP, and files that only look like a checkpoint."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run
from miniclip.models.import_checkpoint import import_checkpoint
from tests.support.cli import run_cli
from tests.support.clip_files import MAX_TOKENS, PREPROCESSOR, TINY, write_tokenizer
from tests.support.hub_server import HubServer, Repository, read_files, use_hub
from tests.support.original import Original

TEXTS = ["a red circle", "cat", "the dog's cat, on  blue squares"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    server = HubServer().start()
    use_hub(monkeypatch, server, tmp_path / "hub-cache")
    yield server
    server.stop()


def publish(hub: HubServer, name: str, files: dict[str, bytes]) -> None:
    hub.repositories[name] = Repository()
    hub.repositories[name].commit(files)


@pytest.mark.parametrize(
    ("name", "kind", "vision"),
    [
        ("HexAryan/vitsmall_roberta", "vit", "facebook/dino-vits16"),
        ("HexAryan/resnet101_roberta", "resnet", "microsoft/resnet-101"),
    ],
)
def test_released_checkpoints_are_imported_by_name(
    hub: HubServer, tmp_path: Path, name: str, kind: str, vision: str
) -> None:
    """Backbones are also found by name, without weights; the run equals that of the downloaded file."""
    original = Original(tmp_path, kind, linear=False)
    checkpoint = original.save(tmp_path / "best.pt")
    publish(hub, name, {f"{name.partition('/')[2]}.pt": checkpoint.read_bytes(), "README.md": b"card"})
    publish(hub, vision, {**read_files(original.vision_spec), "model.safetensors": b"large"})
    publish(hub, "FacebookAI/roberta-base", read_files(original.text_spec))
    done = run_cli("miniclip.cli", "import", name, "--text", "FacebookAI/roberta-base", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert not any("safetensors" in file for file in hub.fetched)
    original.imported(checkpoint, tmp_path / "same")
    ours, same = (load_run(tmp_path / run).encoders().encode_texts(TEXTS) for run in ("run", "same"))
    np.testing.assert_array_equal(ours, same)
    hub.stop()  # once downloaded, it is imported again without a network
    assert "roberta" in import_checkpoint(name, vision, "FacebookAI/roberta-base", tmp_path / "again")


def test_a_name_without_one_checkpoint_is_one_line(hub: HubServer, tmp_path: Path) -> None:
    publish(hub, "jane/none", {"README.md": b"card"})
    publish(hub, "jane/two", {"a.pt": b"1", "b.pt": b"2"})
    for name, words in {
        "jane/none": "holds no .pt file; download the checkpoint and name the file",
        "jane/two": "holds a.pt, b.pt; download the checkpoint and name the file",
        "jane/absent": "no file jane/absent, and no model of that name from the hub (no such model",
    }.items():
        done = run_cli("miniclip.cli", "import", name, "--out", tmp_path / "run")
        assert done.returncode == 2
        assert [words in line for line in done.stderr.splitlines() if line.startswith("error: ")] == [True]
        assert not (tmp_path / "run").exists()


def test_the_prefix_of_data_parallel_is_removed(tmp_path: Path) -> None:
    original = Original(tmp_path, "vit", linear=True)
    torch.save({f"module.{name}": value for name, value in original.state.items()}, tmp_path / "parallel.pt")
    original.imported(tmp_path / "parallel.pt", tmp_path / "run")
    original.imported(original.save(tmp_path / "plain.pt"), tmp_path / "same")
    ours, same = (load_run(tmp_path / run).encoders().encode_texts(TEXTS) for run in ("run", "same"))
    np.testing.assert_array_equal(ours, same)


def test_prepared_embeddings_are_recognised(tmp_path: Path) -> None:
    file = tmp_path / "embeddings.pt"
    embeds = {name: torch.ones(2, 4) for name in ("image_embeddings", "text_embeddings")}
    torch.save({**embeds, "image_ids": ["a.jpg", "b.jpg"], "captions": ["a", "b"]}, file)
    done = run_cli("miniclip.cli", "import", file, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "holds embeddings prepared by the original app, and no model" in done.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, as a folder on the hub."""
    folder = tmp_path_factory.mktemp("clip") / "clip-tiny"
    folder.mkdir()
    ids = write_tokenizer(folder)
    text = {"vocab_size": ids, "max_position_embeddings": MAX_TOKENS, "eos_token_id": ids - 1, **TINY}
    torch.manual_seed(0)
    vision = {"image_size": 64, "patch_size": 16, **TINY}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def probe_of(clip: Path) -> dict[str, Tensor]:
    """The two projections, the temperature and frozen weights, in the names and layout of open_clip."""
    model = CLIPModel.from_pretrained(clip)
    torch.manual_seed(1)
    return {
        "visual.proj": torch.randn(32, 16),
        "text_projection": torch.randn(32, 16),
        "logit_scale": torch.tensor(3.5),
        "visual.conv1.weight": model.vision_model.embeddings.patch_embedding.weight.detach(),
        "token_embedding.weight": model.text_model.embeddings.token_embedding.weight.detach(),
    }


def save_probe(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"epoch": 2, "model_state_dict": state, "config": {"model_name": "ViT-B-32"}, "val_loss": 0.2}, path)
    return path


def test_a_linear_probe_embeds_like_its_clip_with_the_new_projections(clip: Path, tmp_path: Path) -> None:
    state = probe_of(clip)
    file = save_probe(tmp_path / "linearprobe_best.pt", state)
    done = run_cli("miniclip.cli", "import", file, "--vision", clip, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    run = load_run(tmp_path / "run")
    assert (run.config.model.head, run.config.model.projection_dim) == ("linear", 16)
    model = CLIPModel.from_pretrained(clip).eval()
    pixel_values = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        pooled = model.vision_model(pixel_values=pixel_values).pooler_output @ state["visual.proj"]
        images = torch.nn.functional.normalize(pooled).numpy()
        ids, mask = (torch.from_numpy(array) for array in run.tokenizer(TEXTS))
        pooled = model.text_model(input_ids=ids, attention_mask=mask).pooler_output @ state["text_projection"]
        texts = torch.nn.functional.normalize(pooled).numpy()
    encoders = run.encoders()
    np.testing.assert_allclose(encoders.embed_pixels(pixel_values.numpy()), images, atol=1e-5)
    np.testing.assert_allclose(encoders.encode_texts(TEXTS), texts, atol=1e-5)
    assert encoders.logit_scale == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("visual.proj", torch.ones(32, 8), "visual.proj is (8, 32), not (16, 32); --vision must name its initial CLIP"),
        ("token_embedding.weight", torch.ones(5, 32), "was not trained from"),
        ("visual.conv1.weight", torch.ones(32, 3, 16, 16), "visual.conv1.weight differs; name its CLIP (--vision)"),
    ],
)
def test_a_probe_of_another_clip_is_one_line(clip: Path, tmp_path: Path, name: str, value: Tensor, words: str) -> None:
    file = save_probe(tmp_path / "probe.pt", {**probe_of(clip), name: value})
    with pytest.raises(MiniClipError) as error:
        import_checkpoint(file, str(clip), "roberta-base", tmp_path / "run")
    assert words in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_probe_without_a_clip_is_one_line(clip: Path, tiny_backbones: tuple[Path, Path], tmp_path: Path) -> None:
    file = save_probe(tmp_path / "probe.pt", probe_of(clip))
    with pytest.raises(MiniClipError, match="is not a CLIP; name the CLIP that the training started from"):
        import_checkpoint(file, str(tiny_backbones[0]), "roberta-base", tmp_path / "run")
