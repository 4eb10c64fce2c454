"""One step of training: a batch of captions in, gradients of the trained parameters out.

Each image is computed once, even if several of its captions are in the batch. With `micro_batch`, the towers process
that many captions at a time, but the loss uses the whole batch (L. Gao et al., "GradCache", RepL4NLP 2021, section 3).
All embeddings are first computed without gradients. The loss of the whole batch gives each embedding its gradient. Then
each part is computed again, with the same dropout and noise, and passes these gradients on to the parameters.

With `mixup`, the standardised features of each pair are mixed with those of another pair of the batch, images and texts
by the same share (N. Vouitsis et al., "Data-Efficient Multimodal Fusion on a Single GPU", CVPR 2024: FuseMix).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from miniclip.errors import MiniClipError
from miniclip.models.config import TrainConfig
from miniclip.models.dual_encoder import DualEncoder, LinearHead, ProjectionHead

from .data import TrainingData
from .distributed import gather, rank, shares, world
from .loss import Loss
from .sources import UNCAPTIONED
from .teacher import Distillation
from .tower_inputs import TowerInput
from .word_loss import word_loss

PART = 64  # images or captions per pass through a tower on a CPU, so that their data stays in the caches


@dataclass(frozen=True)
class Batch:
    """The rows that this process computes. With mixup, `texts` and `images` are (B, 2): a row and its partner."""

    texts: np.ndarray  # of captions, then the names of prototypes, then words
    images: np.ndarray
    prototypes: np.ndarray
    image_of_text: Tensor  # the place of each text's image among the images, then prototypes, of all processes
    uncaptioned: np.ndarray  # rows of images that only the teacher describes
    taught: tuple[np.ndarray, np.ndarray, np.ndarray]  # all processes' texts, images and uncaptioned images
    own_share: float = 1.0  # of the first row in a mixture
    word_relation: np.ndarray | None = None  # (Q, N_images) of the words to the images of all processes


class ContrastiveStep:
    """Computes the loss of a batch and its gradients."""

    def __init__(self, model: DualEncoder, data: TrainingData, loss: Loss, settings: TrainConfig, prototypes: int):
        self.model, self.data, self.loss, self.settings = model, data, loss, settings
        self.prototypes = prototypes if data.prototypes is not None else 0
        self.device = data.images.device
        self.scaler = self.device.scaler()
        self.distillation: Distillation | None = None
        if settings.teacher:
            self.distillation = Distillation(settings, data, model.vision_head.projection.out_features, self.device)
        self._uncaptioned_rows = data.image_rows(UNCAPTIONED)

    def own_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Parameters that training needs and the model does not, by name."""
        return self.distillation.parameters() if self.distillation is not None else {}

    def images_of(self, captions: np.ndarray) -> np.ndarray:
        """Rows of the images of a batch that this process computes."""
        images = np.unique(self.data.table.image_of_caption[captions])
        own, others = images[shares(len(images))[rank()]], self._uncaptioned(captions)
        return np.concatenate([own, others[shares(len(others))[rank()]]])

    def _uncaptioned(self, captions: np.ndarray) -> np.ndarray:
        """Rows of the images without captions in a batch. The batch is the seed, so that they can be prefetched."""
        rows = self._uncaptioned_rows
        count = min(self.settings.teacher_images_per_batch, len(rows))
        return np.random.default_rng(captions).choice(rows, count, replace=False)

    def backward(self, captions: np.ndarray, view: int) -> float:
        """Compute the gradients of the loss of these captions with this view of their images; returns the loss."""
        batch = self._batch(captions)
        share, images, texts = batch.own_share, self.data.images, self.data.texts
        work: list[Callable[[], Tensor]] = [
            partial(self._images, part, view, share) for part in self._parts(batch.images, images)
        ]
        if len(batch.prototypes):
            work.append(partial(self._prototypes, batch.prototypes))
        texts_start = len(work)
        work += [partial(self._texts, part, share) for part in self._parts(batch.texts, texts)]
        others_start = len(work)
        if len(batch.uncaptioned):
            work += [partial(self._images, part, view, share) for part in self._parts(batch.uncaptioned, images)]

        def backward(embeds: list[Tensor]) -> float:
            others = embeds[others_start:]
            return self._backward(embeds[:texts_start], embeds[texts_start:others_start], others, batch)

        if not self.settings.micro_batch:
            return backward([compute() for compute in work])

        states, leaves = [], []
        for compute in work:
            states.append(self.device.rng_state())
            with torch.no_grad():
                leaves.append(compute().requires_grad_())
        loss = backward(leaves)
        for compute, state, leaf in zip(work, states, leaves, strict=True):
            self.device.set_rng_state(state)
            cast(Any, compute()).backward(leaf.grad)
        return loss

    def _batch(self, captions: np.ndarray) -> Batch:
        images, owner = np.unique(self.data.table.image_of_caption[captions], return_inverse=True)
        chosen = np.empty(0, dtype=np.int64)
        if self.prototypes and self.data.prototypes is not None:
            chosen = self._generator(0).permutation(len(self.data.prototypes))[: self.prototypes]
        owners = len(images) + np.arange(len(chosen))
        generator = self._generator(2)
        spoken = self.data.variants.draw(captions, generator)
        names = self.data.variants.draw(len(self.data.table.captions) + chosen, generator)
        own = shares(len(images))
        if len(own[-1]) == 0:
            raise MiniClipError(f"--train.batch_size {len(captions)} is too small for {world()} processes; raise it")
        # process by process, and within each by length, so that the parts have little padding
        process = np.searchsorted([rows[-1] for rows in own], owner)
        order = np.lexsort((self.data.texts.tokens.lengths[spoken], process))
        ours = order[process[order] == rank()]
        mine = slice(None) if rank() == world() - 1 else slice(0)
        words, relation = self._words(images)
        texts, chosen = np.concatenate([spoken[ours], names[mine], words[mine]]), chosen[mine]
        if rank() > 0:  # noise and dropout differ between processes
            torch.manual_seed(torch.initial_seed() + 7919 * rank())
        image_of_text = self.device.put(np.concatenate([owner[order], owners]))
        others = self._uncaptioned(captions)
        our_others = others[shares(len(others))[rank()]]
        taught = spoken[order], images, others
        batch = Batch(texts, images[own[rank()]], chosen, image_of_text, our_others, taught, word_relation=relation)
        return self._mixed(batch, owner[ours] - own[rank()][0]) if self.settings.mixup else batch

    def _words(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        if self.data.words is None:
            return np.empty(0, dtype=np.int64), None
        return self.data.words.draw(images, self._generator(3))

    def _generator(self, stream: int) -> np.random.Generator:
        """The generator for the rows of a step, which are the same on every device, unlike noise and dropout."""
        return np.random.default_rng([torch.initial_seed(), stream])

    def _mixed(self, batch: Batch, owner: np.ndarray) -> Batch:
        """Mix every image with another one of the batch, and every text with a random caption of that other image.

        Prototypes are not mixed. `owner` holds the place in the batch of each text's image.
        """
        generator = self._generator(1)
        other = batch.images[generator.permutation(len(batch.images))]
        first, end = (
            np.searchsorted(self.data.table.image_of_caption, other[owner], side) for side in ("left", "right")
        )
        captions = first + (generator.random(len(owner)) * (end - first)).astype(np.int64)
        texts = np.concatenate([captions, batch.texts[len(owner) :]])
        share = float(generator.beta(self.settings.mixup, self.settings.mixup))
        images = np.stack([batch.images, other], 1)
        return replace(batch, images=images, texts=np.stack([batch.texts, texts], 1), own_share=share)

    def _parts(self, rows: np.ndarray, side: TowerInput) -> list[np.ndarray]:
        size = self.settings.micro_batch or (PART if side.learns and self.device.is_cpu else len(rows))
        return np.array_split(rows, max(1, -(-len(rows) // max(1, size))))

    def _images(self, rows: np.ndarray, view: int, share: float) -> Tensor:
        features = partial(self.data.images.features, view=view)
        return self._project(self.model.vision_head, _standardised(self.model.vision_head, features, rows, share))

    def _prototypes(self, rows: np.ndarray) -> Tensor:
        assert self.data.prototypes is not None
        return self._project(self.model.vision_head, self.data.prototypes[rows])  # already standardised

    def _texts(self, rows: np.ndarray, share: float) -> Tensor:
        features = self.data.texts.features
        return self._project(self.model.text_head, _standardised(self.model.text_head, features, rows, share))

    def _project(self, head: ProjectionHead | LinearHead, standardised: Tensor) -> Tensor:
        """Unit embeddings of features, after adding noise."""
        noise = self.settings.feature_noise
        if noise:
            standardised = standardised + noise * torch.randn_like(standardised)
        with self.device.autocast():
            return head.project(standardised).float()

    def _backward(self, images: list[Tensor], texts: list[Tensor], others: list[Tensor], batch: Batch) -> float:
        """Compute the loss of all processes' embeddings, and the gradients of this process's; returns the loss.

        `others` are the embeddings of images without captions.
        """
        image_embeds, text_embeds = gather(torch.cat(images)), gather(torch.cat(texts))
        # gradients are summed over processes, so only process 0 contributes the gradient of logit_scale
        logit_scale = self.model.logit_scale if rank() == 0 else self.model.logit_scale.detach()
        text_embeds, word_embeds = text_embeds.tensor_split([len(batch.image_of_text)])
        loss = self.loss(image_embeds, text_embeds, batch.image_of_text, logit_scale)
        if batch.word_relation is not None:
            images_only, relation = image_embeds[: batch.word_relation.shape[1]], self.device.put(batch.word_relation)
            loss = loss + self.settings.word_weight * word_loss(word_embeds, images_only, relation)
        if self.distillation is not None:
            text_rows, image_rows, other_rows = batch.taught
            taught_images = image_embeds[: len(image_rows)]  # without prototypes
            if len(other_rows):
                own = torch.cat(others) if others else image_embeds.new_empty(0, image_embeds.shape[1])
                taught_images = torch.cat([taught_images, gather(own)])
            rows = np.concatenate([image_rows, other_rows])
            loss = loss + self.distillation.loss(
                taught_images, text_embeds[: len(text_rows)], rows, text_rows, logit_scale
            )
        cast(Any, self.scaler.scale(loss)).backward()
        return float(loss.detach())


def _standardised(
    head: ProjectionHead | LinearHead, features: Callable[[np.ndarray], Tensor], rows: np.ndarray, share: float
) -> Tensor:
    """Standardised features (B, d) of rows (B,), or of mixtures (B, 2), in which the first has this share."""
    if rows.ndim == 1:
        return head.standardise(features(rows))
    own, other = (head.standardise(features(rows[:, place])) for place in (0, 1))
    return share * own + (1 - share) * other
