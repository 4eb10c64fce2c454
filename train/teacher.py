"""Distillation: in addition to its own pairs, a run learns the similarities of larger models.

In: bundles or finished runs, by folder or by name, and the images and texts of training. Out: the loss that moves the
student's logits, and on request its embeddings, towards the teachers'. It follows C. Yang et al., "CLIP-KD" (CVPR 2024;
feature distillation) and K. Wu et al., "TinyCLIP" (ICCV 2023), section 3.1 (affinity mimicking). The similarities of
several teachers are averaged. Teachers embed each image once, without crops and mixup; the cache folder keeps their
embeddings. They also embed images without captions, which therefore count in both losses.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load, save
from torch import Tensor, nn
from torch.nn import functional

from miniclip.cache import cache_folder, write_cached
from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.bundle_location import find_bundle, names_bundle
from miniclip.inference.encoders import Encoders
from miniclip.inference.manifest import sha256_of
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.models.checkpoint import load_run
from miniclip.models.config import TrainConfig
from miniclip.models.device import Device
from miniclip.models.hub import local_folder

from .data import TrainingData
from .distributed import rank, say


@dataclass(frozen=True)
class Teacher:
    """Embeddings of all images and texts.

    The embeddings of all teachers are concatenated and divided by the square root of the number of teachers. So an
    inner product is the mean of the teachers' cosines.
    """

    image_embeds: Tensor  # (N_images, D)
    text_embeds: Tensor  # (N_texts, D), rows as in `TrainingData.texts`
    scale: float  # 1 / temperature, the mean over the teachers

    @classmethod
    def open(cls, names: str, data: TrainingData, device: Device) -> "Teacher":
        """Embed everything with each model, or read it from the cache; commas separate the models in `names`.

        Errors: `MiniClipError` when a model cannot be opened, or an image cannot be read.
        """
        each = [name.strip() for name in names.split(",") if name.strip()]
        found = [_embeds(name, data.images.paths, data.all_texts, device) for name in each]
        share = len(found) ** -0.5
        images, texts = (
            torch.from_numpy(np.concatenate([own[name].astype(np.float32) for own in found], axis=1)) * share
            for name in ("image_embeds", "text_embeds")
        )
        return cls(device.put(images), device.put(texts), float(np.mean([own["logit_scale"] for own in found])))

    def logits(self, texts: np.ndarray, images: np.ndarray) -> Tensor:
        """Logits (N_texts, N_images) of these rows."""
        return self.scale * self.rows(self.text_embeds, texts) @ self.rows(self.image_embeds, images).T

    @staticmethod
    def rows(embeds: Tensor, rows: np.ndarray) -> Tensor:
        """Some rows of `embeds`, on its device."""
        return embeds[torch.from_numpy(rows).to(embeds.device)]


class Distillation:
    """The loss of a run that has a teacher. `to_teacher` (E, D) is the learned map into the teacher's space."""

    def __init__(self, settings: TrainConfig, data: TrainingData, dim: int, device: Device) -> None:
        self.teacher = Teacher.open(settings.teacher, data, device)
        self.weight, self.feature_weight = settings.teacher_weight, settings.teacher_features
        self.to_teacher: nn.Parameter | None = None
        if self.feature_weight:
            generator = torch.Generator().manual_seed(settings.seed)
            start = nn.init.orthogonal_(torch.empty(self.teacher.image_embeds.shape[1], dim), generator=generator)
            self.to_teacher = nn.Parameter(device.put(start))

    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that only training needs, by name."""
        return {} if self.to_teacher is None else {"teacher.to_teacher": self.to_teacher}

    def loss(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor,
        image_rows: np.ndarray,
        text_rows: np.ndarray,
        logit_scale: Tensor,
    ) -> Tensor:
        """The weighted loss of some rows, whose embeddings (I, D) and (T, D) all processes have."""
        teacher = self.teacher
        loss = self.weight * affinity(image_embeds, text_embeds, teacher.logits(text_rows, image_rows), logit_scale)
        if self.to_teacher is not None:
            # gradients are summed over processes, so only process 0 contributes that of the map
            to_teacher = self.to_teacher if rank() == 0 else self.to_teacher.detach()
            images = mimicry(image_embeds, teacher.rows(teacher.image_embeds, image_rows), to_teacher)
            texts = mimicry(text_embeds, teacher.rows(teacher.text_embeds, text_rows), to_teacher)
            loss = loss + self.feature_weight * (images + texts) / 2
        return loss


def mimicry(embeds: Tensor, target: Tensor, to_teacher: Tensor) -> Tensor:
    """Mean squared distance between embeddings (N, D), mapped by `to_teacher` (E, D), and the teacher's (N, E).

    Both are scaled to unit length after the map, so that the map cannot shrink the distance.
    """
    return 2 * (1 - functional.cosine_similarity(embeds @ to_teacher.T, target, dim=1)).mean()


def affinity(image_embeds: Tensor, text_embeds: Tensor, target: Tensor, logit_scale: Tensor) -> Tensor:
    """Mean of the divergences KL(teacher, student) of texts over images, and of images over texts.

    `target` (T, I) holds the teacher's logits.
    """
    logits = logit_scale.exp() * text_embeds @ image_embeds.T
    by_text, by_image = (
        functional.kl_div(
            logits.log_softmax(dim), target.log_softmax(dim), reduction="none", log_target=True
        ).sum(dim).mean()
        for dim in (1, 0)
    )  # fmt: skip
    return (by_text + by_image) / 2


def _embeds(name: str, paths: Sequence[Path], texts: Sequence[str], device: Device) -> dict[str, np.ndarray]:
    """`image_embeds`, `text_embeds`, float16, and `logit_scale` of a model, from the cache or computed."""
    identity, opened = _find(name, device)
    key = [identity, [sha256_of(path) for path in paths], list(texts)]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    file = cache_folder() / "teachers" / f"{digest}.safetensors"
    if not file.exists():
        say(f"embedding {len(paths):,} images and {len(texts):,} texts with the teacher {name}")
        encoders = opened()
        batch_size = 16 if device.is_cpu else 256
        skipped: dict[int, str] = {}
        _, image_embeds = encoders.encode_images(paths, skipped.__setitem__, batch_size)
        if skipped:
            row, reason = next(iter(skipped.items()))
            raise MiniClipError(f"--train.teacher {name}: cannot read {paths[row]}: {reason}")
        found: dict[str, np.ndarray] = {
            "image_embeds": image_embeds.astype(np.float16),
            "text_embeds": encoders.encode_texts(list(texts), batch_size).astype(np.float16),
            "logit_scale": np.asarray(np.exp(encoders.logit_scale), dtype=np.float32),
        }
        write_cached(file, save(found))
    return load(file.read_bytes())


def _find(name: str, device: Device) -> tuple[str, Callable[[], Encoders]]:
    """The hash of the model for the cache's key, and a function that opens the model."""
    if names_bundle(name):
        bundle = Bundle.open(find_bundle(name))
        provider, precision = ("cpu" if device.is_cpu else "auto"), bundle.precisions[0]
        return f"{bundle.fingerprint} {precision}", lambda: OnnxEncoders(bundle, provider, precision)
    folder = local_folder(name)
    weights = folder / "model.safetensors"
    if not weights.exists():
        raise MiniClipError(
            f"--train.teacher: {name} is neither a finished run nor a bundle; train it first, or name another model"
        )
    return sha256_of(weights), lambda: load_run(folder).encoders(autocast=not device.is_cpu, device=device)
