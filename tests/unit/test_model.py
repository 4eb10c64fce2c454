"""The head follows its docstring, checked by hand on small numbers; towers pool the right tokens."""

import math

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from miniclip.errors import MiniClipError
from miniclip.models.checkpoint import load_run
from miniclip.models.config import ModelConfig
from miniclip.models.dual_encoder import DualEncoder, ProjectionHead, TextTower, VisionTower, build_model
from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def tiny_bert() -> nn.Module:
    return hf.BertModel(hf.BertConfig(vocab_size=40, max_position_embeddings=16, **TINY), add_pooling_layer=False)


def tiny_vit() -> nn.Module:
    return hf.ViTModel(hf.ViTConfig(image_size=32, patch_size=16, **TINY), add_pooling_layer=False)


@pytest.fixture
def model() -> DualEncoder:
    torch.manual_seed(0)
    return build_model(ModelConfig(projection_dim=8), tiny_vit(), tiny_bert()).eval()


def test_head_is_linear_gelu_linear_residual_layer_norm_and_unit_length() -> None:
    head = ProjectionHead(feature_dim=2, projection_dim=2, dropout=0.5).eval()
    with torch.no_grad():
        head.projection.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        head.projection.bias.copy_(torch.tensor([0.0, -1.0]))
        head.fc.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        head.fc.bias.copy_(torch.tensor([0.5, 0.0]))
        head.layer_norm.weight.copy_(torch.tensor([3.0, 1.0]))
        head.layer_norm.bias.copy_(torch.tensor([0.0, 1.0]))
    # features (0.2, 0.7): projected (0.2, 0.4); GELU (0.115852, 0.262169); fc swaps them and adds 0.5 to the first:
    # (0.762169, 0.115852); with the residual (0.962169, 0.515852); its mean is 0.739011, its deviation 0.223159
    normed = 0.223159 / math.sqrt(0.223159**2 + 1e-5)  # layer norm gives (normed, -normed)
    x, y = 3 * normed, 1 - normed
    expected = torch.tensor([[x, y]]) / math.hypot(x, y)
    torch.testing.assert_close(head(torch.tensor([[0.2, 0.7]])), expected, rtol=0, atol=1e-6)
    # features (0.2, 0.3): projected (0.2, -0.4); GELU (0.115852, -0.137831); fc (0.362169, 0.115852);
    # with the residual (0.562169, -0.284148)
    deviation = (0.562169 + 0.284148) / 2
    normed = deviation / math.sqrt(deviation**2 + 1e-5)
    x, y = 3 * normed, 1 - normed
    expected = torch.tensor([[x, y]]) / math.hypot(x, y)
    torch.testing.assert_close(head(torch.tensor([[0.2, 0.3]])), expected, rtol=0, atol=1e-6)


def test_dropout_is_before_the_residual_and_only_in_training() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(4, 4, dropout=1 - 1e-9)
    features = torch.randn(3, 4)
    projected = head.projection(features)  # dropout zeroes the branch, but not the residual
    expected = nn.functional.normalize(head.layer_norm(projected), dim=-1)
    torch.testing.assert_close(head.train()(features), expected)
    assert not torch.allclose(head.eval()(features), expected, atol=1e-2)


def test_features_are_standardised_by_the_training_set() -> None:
    head = ProjectionHead(3, 2, dropout=0.0)
    features = torch.tensor([[0.0, 10.0, 5.0], [2.0, 30.0, 5.0]])
    torch.testing.assert_close(head.standardise(features), features)  # the identity before the fit
    head.fit_features(features)
    deviation = math.sqrt(2)  # of (0, 2), with N - 1
    torch.testing.assert_close(head.standardise(features)[:, 0], torch.tensor([-1, 1]) / deviation)
    assert head.standardise(torch.tensor([[1.0, 20.0, 5.0]])).abs().max() == 0


def test_a_nearly_constant_feature_is_not_amplified() -> None:
    head = ProjectionHead(3, 2, dropout=0.0)
    head.fit_features(torch.tensor([[0.0, 10.0, 5.0], [2.0, 30.0, 5.0]]))
    floor = 0.1 * math.sqrt(2)  # a tenth of the median deviation
    assert head.feature_std[2].item() == pytest.approx(floor, rel=1e-5)


def test_logit_scale_starts_at_one_over_007_and_multiplies_cosines(model: DualEncoder) -> None:
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07)) == pytest.approx(2.6592, abs=1e-4)
    pixel_values, ids = torch.randn(2, 3, 32, 32), torch.randint(0, 40, (3, 5))
    with torch.inference_mode():
        logits = model(pixel_values, ids, torch.ones_like(ids))  # (N_texts, N_images)
        cosines = model.encode_text(ids, torch.ones_like(ids)) @ model.encode_image(pixel_values).T
        torch.testing.assert_close(logits, cosines / 0.07, rtol=1e-5, atol=1e-5)
        model.logit_scale.fill_(9.0)
        torch.testing.assert_close(model(pixel_values, ids, torch.ones_like(ids)), cosines * 100, rtol=1e-5, atol=1e-4)


def test_embeddings_have_unit_length(model: DualEncoder) -> None:
    with torch.inference_mode():
        embeds = [
            model.encode_image(torch.randn(3, 3, 32, 32)),
            model.encode_text(torch.ones(3, 4).long(), torch.ones(3, 4)),
        ]
    for rows in embeds:
        assert rows.shape == (3, 8)
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(3))


def test_mean_pooling_takes_the_mean_of_the_words_and_ignores_padding() -> None:
    torch.manual_seed(0)
    tower = TextTower(tiny_bert(), "auto").eval()
    assert tower.pooling == "mean"
    ids, mask = torch.tensor([[2, 7, 9, 3]]), torch.ones(1, 4).long()
    with torch.inference_mode():
        alone = tower(ids, mask)
        tokens = tower.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        padded = tower(nn.functional.pad(ids, (0, 5)), nn.functional.pad(mask, (0, 5)))
        first = TextTower(tower.backbone, "cls")(ids, mask)
    torch.testing.assert_close(alone, tokens.mean(dim=1))
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(first, tokens[:, 0])


def test_vision_pooling_is_class_token_then_mean_of_patches() -> None:
    torch.manual_seed(0)
    backbone = tiny_vit().eval()
    pixel_values = torch.randn(2, 3, 32, 32)
    pooled: dict[str, Tensor] = {}
    with torch.inference_mode():
        tokens = backbone(pixel_values=pixel_values).last_hidden_state
        for pooling in ("auto", "cls", "mean"):
            tower = VisionTower(backbone, pooling).eval()
            pooled[pooling] = tower(pixel_values)
            assert pooled[pooling].shape[1] == tower.feature_dim
    torch.testing.assert_close(pooled["cls"], tokens[:, 0])
    torch.testing.assert_close(pooled["mean"], tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(pooled["auto"], torch.cat([pooled["cls"], pooled["mean"]], dim=1))


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_a_pooling_that_the_backbone_lacks_is_refused(pooling: str) -> None:
    convolutional = [
        EfficientNetLite(EfficientNetLiteConfig(width=0.25, depth=0.5)),
        hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])),
    ]
    for backbone in convolutional:
        with pytest.raises(MiniClipError, match=r"--model\.vision_pooling .*use auto"):
            VisionTower(backbone, pooling)
    with pytest.raises(MiniClipError, match=r"--model\.text_pooling eos"):
        TextTower(tiny_bert(), "eos")


def test_the_position_table_limits_the_text_length() -> None:
    roberta = hf.RobertaModel(hf.RobertaConfig(vocab_size=40, max_position_embeddings=16, pad_token_id=1, **TINY))
    assert TextTower(tiny_bert(), "auto").max_positions == 16
    tower = TextTower(roberta.eval(), "auto")
    assert tower.max_positions == 14
    longest = torch.full((1, 14), 5)
    assert tower(longest, torch.ones_like(longest)).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        tower(torch.full((1, 15), 5), torch.ones(1, 15).long())


def test_torch_encoders_equal_the_model(tiny_run, image_folder) -> None:
    run = load_run(tiny_run)
    encoders = run.encoders()
    paths = sorted(image_folder.glob("*.jpg"))[:3]
    rows, image_embeds = encoders.encode_images(paths)
    texts = ["a red circle on white", "blue", "two big green dogs and a small yellow cat"]
    text_embeds = encoders.encode_texts(texts)
    assert (rows.tolist(), encoders.dim) == ([0, 1, 2], 32)
    pixel_values = torch.from_numpy(np.stack([run.transform.load(path) for path in paths]))
    with torch.inference_mode():
        np.testing.assert_allclose(image_embeds, run.model.encode_image(pixel_values).numpy(), atol=1e-5)
        for text, row in zip(texts, text_embeds, strict=True):
            alone = run.model.encode_text(*map(torch.from_numpy, run.tokenizer([text])))[0]
            np.testing.assert_allclose(row, alone.numpy(), atol=1e-5)
    assert encoders.logit_scale == pytest.approx(min(run.model.logit_scale.item(), math.log(100)))
    half = run.encoders(autocast=True).encode_texts(texts)
    assert half.dtype == np.float32
    assert (half * text_embeds).sum(axis=1).min() > 0.99
