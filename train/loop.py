"""The training loop of setup 1: projection heads on cached features of frozen backbones.

In: `TrainingFeatures` and a model. Out: a run folder whose weights are those of the epoch with the best mean recall on
the whole validation split. Every epoch is seeded by its number, so a resumed run repeats an uninterrupted one.
"""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from miniclip.checkpoint import load_training_state, save_run, save_training_state
from miniclip.config import Config
from miniclip.errors import MiniClipError
from miniclip.metrics import retrieval_recalls
from miniclip.model import LOGIT_SCALE_MAX, DualEncoder
from train.data import PairFeatures, TrainingFeatures
from train.loss import contrastive_loss
from train.setups import parameter_groups


@dataclass
class Progress:
    """Where a run stands: enough to go on after a stop."""

    epoch: int = 0
    best_epoch: int = 0
    best_recall: float = -1.0


def learning_rate_factor(step: int, steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then a cosine to zero (I. Loshchilov and F. Hutter, SGDR, ICLR 2017, without restarts)."""
    warmup_steps = round(warmup_fraction * steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def train_heads(folder: Path, config: Config, model: DualEncoder, features: TrainingFeatures, resume: bool) -> float:
    """Train the heads; returns the best mean recall on validation. Weights and metrics are in `folder`."""
    train, settings = features.train, config.train
    heads = torch.nn.ModuleDict({"vision": model.vision_head, "text": model.text_head})
    model.vision_head.fit_features(train.images)
    model.text_head.fit_features(train.texts)
    optimiser = torch.optim.AdamW(parameter_groups(model, settings), lr=settings.learning_rate)
    steps_per_epoch = max(1, len(train.texts) // settings.batch_size)
    steps = settings.epochs * steps_per_epoch

    progress = Progress()
    if resume and (state := load_training_state(folder)) is not None:
        heads.load_state_dict(state["heads"])
        model.logit_scale.data.copy_(state["logit_scale"])
        optimiser.load_state_dict(state["optimiser"])
        progress = Progress(**state["progress"])
        print(f"continuing after epoch {progress.epoch}")
    _forget_later_epochs(folder / "metrics.jsonl", progress.epoch)

    for epoch in range(progress.epoch + 1, settings.epochs + 1):
        if epoch - progress.best_epoch > settings.patience and progress.best_epoch > 0:
            print(f"no better mean recall for {settings.patience} epochs: stopping early")
            break
        started = time.perf_counter()
        first_step = (epoch - 1) * steps_per_epoch
        loss = _train_epoch(model, heads, optimiser, features, config, epoch, first_step, steps)
        recall = validate(model, features.val)
        seconds = round(time.perf_counter() - started, 3)
        record: dict[str, Any] = {"epoch": epoch, "loss": round(loss, 5), "seconds": seconds, **recall}
        record["logit_scale"] = float(model.logit_scale.detach())
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if recall["mean_recall"] > progress.best_recall:
            progress.best_epoch, progress.best_recall = epoch, recall["mean_recall"]
            save_run(folder, config, model, recall)
        progress.epoch = epoch
        state = {"heads": heads.state_dict(), "logit_scale": model.logit_scale.detach(), "progress": vars(progress)}
        save_training_state(folder, {**state, "optimiser": optimiser.state_dict()})
        star = " *" if progress.best_epoch == epoch else ""
        print(
            f"epoch {epoch:>3}  loss {loss:.4f}  mean recall {100 * recall['mean_recall']:.2f}  {seconds:.1f} s{star}"
        )
    return progress.best_recall


def _train_epoch(
    model: DualEncoder,
    heads: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    features: TrainingFeatures,
    config: Config,
    epoch: int,
    first_step: int,
    steps: int,
) -> float:
    """One pass over the captions in random order; returns the mean loss."""
    settings = config.train
    torch.manual_seed(settings.seed * 100_003 + epoch)
    heads.train()
    order = torch.randperm(len(features.train.texts))
    count = max(1, len(order) // settings.batch_size)
    total = 0.0
    bar = tqdm(range(count), desc=f"epoch {epoch}/{settings.epochs}", unit="step", leave=False, disable=None)
    for number in bar:
        factor = learning_rate_factor(first_step + number, steps, settings.warmup_fraction)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * factor
        batch = order[number * settings.batch_size : (number + 1) * settings.batch_size]
        images, texts, image_ids = _batch(model, features, batch, config.data.prototypes_per_batch)
        images = images + settings.feature_noise * torch.randn_like(images)
        texts = texts + settings.feature_noise * torch.randn_like(texts)
        loss = contrastive_loss(
            model.vision_head.project(images), model.text_head.project(texts), model.logit_scale, image_ids
        )
        if not torch.isfinite(loss):
            raise _diverged(f"the loss became {loss.item()} in epoch {epoch}")
        optimiser.zero_grad(set_to_none=True)
        cast(Any, loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimiser.step()
        model.logit_scale.data.clamp_(0, LOGIT_SCALE_MAX)
        total += loss.item()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return total / count


def _batch(
    model: DualEncoder, features: TrainingFeatures, rows: Tensor, prototypes_per_batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Standardised features of the captions `rows` and their images, with some prototypes behind them."""
    image_ids = features.train.image_of_caption[rows]
    images = model.vision_head.standardise(features.train.images[image_ids])
    texts = model.text_head.standardise(features.train.texts[rows])
    extra = features.prototypes
    if extra is not None:
        chosen = torch.randperm(len(extra.images))[:prototypes_per_batch]
        images = torch.cat([images, extra.images[chosen]])  # they are standardised already
        texts = torch.cat([texts, model.text_head.standardise(extra.texts[chosen])])
        image_ids = torch.cat([image_ids, len(features.train.images) + chosen])
    return images, texts, image_ids


@torch.inference_mode()
def validate(model: DualEncoder, pairs: PairFeatures) -> dict[str, float]:
    """Recall@K of the heads on a whole split of cached features."""
    model.eval()
    image_embeds, text_embeds = model.vision_head(pairs.images), model.text_head(pairs.texts)
    if not (torch.isfinite(image_embeds).all() and torch.isfinite(text_embeds).all()):
        raise _diverged("the weights are no longer finite")  # NaN ranks no picture above the right one: 100 % recall
    return retrieval_recalls(text_embeds.numpy(), image_embeds.numpy(), pairs.image_of_caption.numpy())


def _diverged(what: str) -> MiniClipError:
    return MiniClipError(f"{what}; the last good checkpoint is kept, lower --train.learning_rate and start again")


def _forget_later_epochs(path: Path, last_epoch: int) -> None:
    """Drop lines of epochs that a resumed run is about to repeat."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["epoch"] <= last_epoch]
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
