"""Our EfficientNet-Lite equals the published one: same outputs as its PyTorch port, same number of parameters."""

import pytest
import torch
from torch import nn

from miniclip.errors import MiniClipError
from miniclip.models.efficientnet import EfficientNetLite, EfficientNetLiteConfig, from_reference_names


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("variant", "parameters"), [("lite0", 3_371_008), ("lite1", 4_135_680), ("lite2", 4_811_072)])
def test_parameters_without_the_classifier(variant: str, parameters: int) -> None:
    assert count(EfficientNetLite(EfficientNetLiteConfig(variant))) == parameters


def test_with_a_classifier_of_1000_classes_lite0_has_the_published_4_65_million() -> None:
    assert count(EfficientNetLite(EfficientNetLiteConfig())) + count(nn.Linear(1280, 1000)) == 4_652_008


@pytest.mark.parametrize(("variant", "size_px"), [("lite0", 100), ("lite2", 64)])  # 100 gives feature maps of odd size
def test_outputs_equal_the_published_port(variant: str, size_px: int) -> None:
    published = pytest.importorskip("efficientnet_lite_pytorch", reason='needs pip install "miniclip[dev]"')
    torch.manual_seed(0)
    theirs = published.EfficientNet.from_name(f"efficientnet-{variant}", image_size=size_px)
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1, 0.1)
            nn.init.normal_(part.bias, 0, 0.1)
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    ours = EfficientNetLite(EfficientNetLiteConfig(variant))
    ours.load_state_dict(from_reference_names(theirs.state_dict()), strict=True)
    pixel_values = torch.randn(2, 3, size_px, size_px)
    with torch.inference_mode():
        expected = theirs.eval().extract_features(pixel_values).mean(dim=(2, 3))
        image_features = ours.eval()(pixel_values)
    assert expected.std() > 0.01  # there is something to compare
    torch.testing.assert_close(image_features, expected, rtol=1e-5, atol=1e-5)


def test_width_and_depth_make_a_tiny_one() -> None:
    tiny = EfficientNetLite(EfficientNetLiteConfig(width=0.25, depth=0.5, hidden_size=64)).eval()
    assert count(tiny) < 200_000
    assert tiny(torch.zeros(2, 3, 64, 96)).shape == (2, 64)


def test_an_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(MiniClipError, match="known are lite0, lite1, lite2"):
        EfficientNetLite(EfficientNetLiteConfig("lite9"))
