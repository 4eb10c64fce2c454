"""The four losses against values computed by hand, with several captions of one image in a batch."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from miniclip.models.config import TrainConfig
from train.loss import infonce, make_loss, multi_positive, sigmoid, triplet

NO_SCALE = torch.tensor(0.0)
OWNER = [0, 0, 1, 2, 2, 2]  # six captions of three images
LOSSES = ("infonce", "sigmoid", "multi-positive", "triplet")


def unit(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def cosines_of(images: Tensor, texts: Tensor) -> list[list[float]]:
    """Texts x images, in float64, without a matrix product."""
    return [[math.fsum(a * b for a, b in zip(t, i, strict=True)) for i in images.tolist()] for t in texts.tolist()]


def softmax_loss(right: float, wrong: list[float]) -> float:
    return math.log(math.fsum(math.exp(score) for score in [right, *wrong])) - right


def infonce_by_hand(c: list[list[float]], scale: float) -> float:
    s = [[scale * value for value in row] for row in c]
    by_text = [softmax_loss(s[t][i], [s[t][j] for j in range(3) if j != i]) for t, i in enumerate(OWNER)]
    by_image = [softmax_loss(s[t][i], [s[u][i] for u, j in enumerate(OWNER) if j != i]) for t, i in enumerate(OWNER)]
    return (sum(by_text) / 6 + sum(by_image) / 6) / 2


def multi_positive_by_hand(c: list[list[float]], scale: float) -> float:
    s = [[scale * value for value in row] for row in c]
    by_text = [softmax_loss(s[t][i], [s[t][j] for j in range(3) if j != i]) for t, i in enumerate(OWNER)]
    by_image = []
    for i in range(3):
        own = [softmax_loss(s[t][i], [s[u][i] for u in range(6) if u != t]) for t in range(6) if OWNER[t] == i]
        by_image.append(sum(own) / len(own))
    return (sum(by_text) / 6 + sum(by_image) / 3) / 2


def sigmoid_by_hand(c: list[list[float]], scale: float) -> float:
    total = 0.0
    for t in range(6):
        for i in range(3):
            sign = 1 if OWNER[t] == i else -1
            total += math.log(1 + math.exp(-sign * (scale * c[t][i] - 10)))
    return total / 6


def triplet_by_hand(c: list[list[float]], margin: float) -> float:
    total = 0.0
    for t, i in enumerate(OWNER):
        total += max(0.0, margin + max(c[t][j] for j in range(3) if j != i) - c[t][i])
        total += max(0.0, margin + max(c[u][i] for u in range(6) if OWNER[u] != i) - c[t][i])
    return total / 6


def test_infonce_equals_the_value_computed_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # cosines, texts x images: ((0.6, 0.8), (0, 1)); times 2
    by_text = (math.log(math.exp(1.2) + math.exp(1.6)) - 1.2 + math.log(1 + math.exp(2)) - 2) / 2
    by_image = (math.log(math.exp(1.2) + 1) - 1.2 + math.log(math.exp(1.6) + math.exp(2)) - 2) / 2
    loss = infonce(images, texts, torch.tensor([0, 1]), torch.tensor(math.log(2)))
    assert loss.item() == pytest.approx((by_text + by_image) / 2, abs=1e-6)


def test_multi_positive_equals_the_value_computed_by_hand() -> None:
    images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    # cosines, texts x images: ((1, 0), (0.6, 0.8), (0, 1)); the first two texts are of image 0
    e = math.exp
    by_text = (math.log(e(1) + 1) - 1 + math.log(e(0.6) + e(0.8)) - 0.6 + math.log(1 + e(1)) - 1) / 3
    first = math.log(e(1) + e(0.6) + 1)  # the partition of image 0 over all texts
    by_image = ((first - 1 + first - 0.6) / 2 + math.log(1 + e(0.8) + e(1)) - 1) / 2
    loss = multi_positive(images, texts, torch.tensor([0, 0, 1]), NO_SCALE)
    assert loss.item() == pytest.approx((by_text + by_image) / 2, abs=1e-6)


def test_sigmoid_equals_the_value_computed_by_hand() -> None:
    images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # logits 10 * cosine - 10: right 0 and -2, wrong -10 and -4
    terms = [math.log(1 + math.exp(x)) for x in (0.0, 2.0, -10.0, -4.0)]
    loss = sigmoid(images, texts, torch.tensor([0, 1]), torch.tensor(math.log(10)))
    assert loss.item() == pytest.approx(sum(terms) / 2, abs=1e-5)


def test_triplet_equals_the_value_computed_by_hand() -> None:
    images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # cosines, texts x images: ((1, 0), (0.6, 0.8)); margin 0.5
    by_text = (max(0, 0.5 + 0.0 - 1.0) + (0.5 + 0.6 - 0.8)) / 2
    by_image = ((0.5 + 0.6 - 1.0) + max(0, 0.5 + 0.0 - 0.8)) / 2
    assert triplet(images, texts, torch.tensor([0, 1]), 0.5).item() == pytest.approx(by_text + by_image, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "by_hand", "scale"),
    [
        ("infonce", infonce_by_hand, 5.0),
        ("multi-positive", multi_positive_by_hand, 5.0),
        ("sigmoid", sigmoid_by_hand, 8.0),
        ("triplet", triplet_by_hand, 0.3),
    ],
)
def test_several_captions_of_one_image_give_the_loss_written_out_in_loops(
    name: str, by_hand: Callable[[list[list[float]], float], float], scale: float
) -> None:
    images, texts = unit(3, 4, seed=0), unit(6, 4, seed=1)
    loss = make_loss(TrainConfig(loss=name, margin=scale))  # only the triplet loss has a margin
    value = loss(images, texts, torch.tensor(OWNER), torch.tensor(math.log(scale)))
    assert value.item() == pytest.approx(by_hand(cosines_of(images, texts), scale), rel=1e-5)


def test_another_caption_of_the_same_image_is_not_a_negative() -> None:
    images, texts = unit(2, 4, seed=2), unit(3, 4, seed=3)
    logits = (math.e * texts @ images.T).double()
    # texts 0 and 1 show image 0: their only negative is the other image, and that of image 0 is text 2
    rows = [logits[0, [0, 1]], logits[1, [0, 1]], logits[2, [1, 0]]]
    columns = [logits[[0, 2], 0], logits[[1, 2], 0], logits[[2, 0, 1], 1]]
    expected = [sum(torch.logsumexp(v, 0) - v[0] for v in part) / 3 for part in (rows, columns)]
    loss = infonce(images, texts, torch.tensor([0, 0, 1]), torch.tensor(1.0))
    assert loss.item() == pytest.approx(float(sum(expected)) / 2, abs=1e-6)


@pytest.mark.parametrize("name", ["infonce", "triplet"])
def test_a_caption_is_not_pushed_away_from_its_image_by_another_caption_of_it(name: str) -> None:
    """Caption 1 equals the image, so it is closer than caption 0; the loss of caption 0 must ignore it."""
    images = torch.eye(4)[:2]
    texts = torch.tensor([[0.6, 0.0, 0.8, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]).requires_grad_()
    loss = make_loss(TrainConfig(loss=name, margin=0.7))
    loss(images, texts, torch.tensor([0, 0, 1]), torch.tensor(2.0)).backward()
    assert texts.grad is not None and torch.isfinite(texts.grad).all()
    assert texts.grad[0, 0] < 0  # pulled closer
    assert texts.grad[1, 0] <= 0  # not pushed away
    assert texts.grad[0, 1] > 0  # the other image is pushed away
    assert (texts.grad[:, 2:] == 0).all()  # no image lies in these directions


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_one_image_has_a_finite_loss_and_finite_gradients(name: str) -> None:
    image, texts = unit(1, 4, seed=4).requires_grad_(), unit(3, 4, seed=5).requires_grad_()
    scale = torch.tensor(math.log(100)).requires_grad_()
    loss = make_loss(TrainConfig(loss=name))(image, texts, torch.zeros(3, dtype=torch.long), scale)
    loss.backward()
    assert math.isfinite(loss.item())
    for leaf in (image, texts, scale):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()
    assert texts.grad is not None
    if name == "infonce":  # such a batch has no negatives
        assert loss.item() == 0 and not texts.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_nearer_to_its_captions_has_a_smaller_loss(name: str) -> None:
    images, texts = unit(3, 8, seed=6), unit(6, 8, seed=7)
    loss = make_loss(TrainConfig(loss=name))
    near = torch.nn.functional.normalize(texts + 2 * images[OWNER], dim=-1)
    owner, scale = torch.tensor(OWNER), torch.tensor(2.0)
    assert loss(images, near, owner, scale) < loss(images, texts, owner, scale)
