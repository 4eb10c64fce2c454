"""One step of training: a batch of captions in, gradients on all that learns out.

Each picture is computed once, however many of its captions are in the batch. With `micro_batch`, the towers see that
many captions at a time, while the loss sees the whole batch (L. Gao et al., "GradCache", RepL4NLP 2021, section 3):
embeddings are computed without gradients, the loss gives each of them its gradient, and each part is computed again to
carry that on. Dropout and noise of the second pass are those of the first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from miniclip.config import TrainConfig
from miniclip.errors import MiniClipError
from miniclip.model import DualEncoder, LinearHead, ProjectionHead
from train.data import TrainingData
from train.distributed import gather, rank, shares, world
from train.features import bfloat16
from train.inputs import Side
from train.loss import Loss

PART = 64  # pictures or captions that go through a tower together: what they need stays near the caches


@dataclass(frozen=True)
class Batch:
    """Rows of the texts, pictures and prototypes that this process computes, and for every text of all processes
    the place of its picture among all pictures; prototypes are last."""

    texts: np.ndarray
    images: np.ndarray
    prototypes: np.ndarray
    image_of_text: Tensor


class Embedder:
    """Computes the loss of a batch and its gradients."""

    def __init__(self, model: DualEncoder, data: TrainingData, loss: Loss, settings: TrainConfig, prototypes: int):
        self.model, self.data, self.loss, self.settings = model, data, loss, settings
        self.prototypes = prototypes if data.prototypes is not None else 0

    def backward(self, captions: np.ndarray, view: int) -> float:
        """Gradients of the loss of these captions and their pictures, in the view of that number; returns the loss."""
        batch = self._batch(captions)
        work: list[Callable[[], Tensor]] = [
            *(partial(self._images, part, view) for part in self._parts(batch.images, self.data.images)),
            *([partial(self._prototypes, batch.prototypes)] if len(batch.prototypes) else []),
        ]
        count = len(work)  # of them are pictures
        work += [partial(self._texts, part) for part in self._parts(batch.texts, self.data.texts)]
        if not self.settings.micro_batch:
            embeds = [compute() for compute in work]
            return self._backward(embeds[:count], embeds[count:], batch.image_of_text)

        states, leaves = [], []
        for compute in work:
            states.append(torch.get_rng_state())
            with torch.no_grad():
                leaves.append(compute().requires_grad_())
        loss = self._backward(leaves[:count], leaves[count:], batch.image_of_text)
        for compute, state, leaf in zip(work, states, leaves, strict=True):
            torch.set_rng_state(state)
            cast(Any, compute()).backward(leaf.grad)
        return loss

    def _batch(self, captions: np.ndarray) -> Batch:
        images, owner = np.unique(self.data.table.image_of_caption[captions], return_inverse=True)
        chosen = np.empty(0, dtype=np.int64)
        if self.prototypes and self.data.prototypes is not None:
            chosen = torch.randperm(len(self.data.prototypes))[: self.prototypes].numpy()
        owners = len(images) + np.arange(len(chosen))
        own = shares(len(images))
        if len(own[-1]) == 0:
            raise MiniClipError(f"--train.batch_size {len(captions)} is too small for {world()} processes; raise it")
        # the processes' captions in order, and those of one process by length: parts of them have little padding
        process = np.searchsorted([rows[-1] for rows in own], owner)
        order = np.lexsort((self.data.texts.tokens.lengths[captions], process))
        texts = captions[order][process[order] == rank()]
        chosen = chosen if rank() == world() - 1 else chosen[:0]
        texts = np.concatenate([texts, len(self.data.table.captions) + chosen])
        if rank() > 0:  # other noise and dropout than the other processes'
            torch.manual_seed(torch.initial_seed() + 7919 * rank())
        return Batch(texts, images[own[rank()]], chosen, torch.from_numpy(np.concatenate([owner[order], owners])))

    def _parts(self, rows: np.ndarray, side: Side) -> list[np.ndarray]:
        size = self.settings.micro_batch or (PART if side.learns else len(rows))
        return np.array_split(rows, max(1, -(-len(rows) // max(1, size))))

    def _images(self, rows: np.ndarray, view: int) -> Tensor:
        features = self.data.images.features(rows, view)
        return self._project(self.model.vision_head, self.model.vision_head.standardise(features))

    def _prototypes(self, rows: np.ndarray) -> Tensor:
        assert self.data.prototypes is not None
        return self._project(self.model.vision_head, self.data.prototypes[rows])  # standardised already

    def _texts(self, rows: np.ndarray) -> Tensor:
        return self._project(self.model.text_head, self.model.text_head.standardise(self.data.texts.features(rows)))

    def _project(self, head: ProjectionHead | LinearHead, standardised: Tensor) -> Tensor:
        """Unit embeddings, of features with noise."""
        noise = self.settings.feature_noise
        if noise:
            standardised = standardised + noise * torch.randn_like(standardised)
        with bfloat16():
            return head.project(standardised).float()

    def _backward(self, images: list[Tensor], texts: list[Tensor], image_of_text: Tensor) -> float:
        """The loss of all processes' embeddings; its gradient flows into this process's."""
        image_embeds, text_embeds = gather(torch.cat(images)), gather(torch.cat(texts))
        # every process computes the same loss and gradients are summed: what is not a share, one of them adds
        logit_scale = self.model.logit_scale if rank() == 0 else self.model.logit_scale.detach()
        loss = self.loss(image_embeds, text_embeds, image_of_text, logit_scale)
        cast(Any, loss).backward()
        return float(loss.detach())
