"""Weights of a backbone load from every naming scheme of transformers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model, PreTrainedModel, ViTConfig, ViTModel

from miniclip.models.backbones import load_backbone

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 16}
MODELS = {
    "vit": lambda: ViTModel(ViTConfig(intermediate_size=48, **SIZE), add_pooling_layer=False),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZE)),
}


@pytest.mark.parametrize("name", MODELS)
def test_old_new_and_prefixed_names_load_alike(name: str, tmp_path: Path) -> None:
    """Names from `save_pretrained`, from the module, and from inside a larger model."""
    model: PreTrainedModel = MODELS[name]()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    own = {key: value.contiguous() for key, value in model.state_dict().items()}
    written = load_file(file)
    assert written.keys() != own.keys()  # otherwise the test could not fail
    for state in (written, own, {f"{model.base_model_prefix}.{key}": value for key, value in own.items()}):
        save_file(state, file, metadata={"format": "pt"})
        loaded = load_backbone(tmp_path, "vision").state_dict()
        assert loaded.keys() == own.keys()
        assert all(torch.equal(value, own[key]) for key, value in loaded.items())
