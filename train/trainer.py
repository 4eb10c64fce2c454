"""The training loop of all setups: batches of captions and their images in, the best epoch's run folder out.

The seed of a step follows from `--train.seed` and the number of the step, and that of an epoch's order likewise. So a
run that was killed and resumed gives the same result as an uninterrupted one. The kept weights have the best mean
recall on the validation split, or are the last ones (`--train.select last`).
"""

import contextlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from miniclip.data.progress import ProgressBar
from miniclip.errors import MiniClipError
from miniclip.files import replace_atomically
from miniclip.models.checkpoint import load_training_state, save_run, save_training_state
from miniclip.models.config import Config, TrainConfig
from miniclip.models.dual_encoder import LOGIT_SCALE_MAX, DualEncoder

from .data import TrainingData
from .distributed import rank, say, sum_gradients
from .ema import ExponentialMovingAverage
from .loss import make_loss
from .param_groups import parameter_groups
from .step import ContrastiveStep
from .tracker import Record, Track
from .validation import diverged, row_batches, validate, validate_held_out

FITTED_ROWS = 4096  # rows used by `fit_heads` if features are not cached


@dataclass
class Progress:
    """The position from which a stopped run continues. `step` counts the finished steps of the current epoch."""

    epoch: int = 0  # finished epochs
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_epoch: int = 0
    best_recall: float = -1.0


def learning_rate_factor(step: int, steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then a cosine to zero (I. Loshchilov and F. Hutter, SGDR, ICLR 2017, without restarts)."""
    warmup_steps = round(warmup_fraction * steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def epoch_batches(data: TrainingData, settings: TrainConfig, epoch: int) -> list[np.ndarray]:
    """The caption rows of each step of an epoch."""
    generator = np.random.default_rng([settings.seed, epoch])
    per_image = settings.captions_per_image
    if per_image == 0:
        order = generator.permutation(data.drawn_texts(generator))
        return [order[start : start + settings.batch_size] for start in _starts(len(order), settings.batch_size)]
    images = data.drawn_images(generator)
    starts, ends = (np.searchsorted(data.table.image_of_caption, images, side) for side in ("left", "right"))
    images_with_captions = np.flatnonzero(ends > starts)
    chosen = [
        generator.permutation(np.arange(starts[place], ends[place]))[:per_image]
        for place in generator.permutation(images_with_captions)
    ]
    size = max(1, settings.batch_size // per_image)  # in images: an image and its captions are in the same batch
    return [np.concatenate(chosen[start : start + size]) for start in _starts(len(chosen), size)]


def _starts(count: int, size: int) -> range:
    """The starts of batches; an incomplete last batch is dropped, unless it is the only one."""
    return range(0, max(1, count - size + 1), size)


class Trainer:
    """One run: model, data, optimiser, and position."""

    def __init__(self, folder: Path, config: Config, model: DualEncoder, data: TrainingData) -> None:
        self.folder, self.config, self.model, self.data = folder, config, model, data
        settings = config.train
        groups = parameter_groups(model, data.images, data.texts, settings)
        self.embedder = ContrastiveStep(model, data, make_loss(settings), settings, config.data.prototypes_per_batch)
        self.trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        if others := self.embedder.own_parameters():
            groups.append({**groups[0], "params": list(others.values()), "weight_decay": 0.0})
            self.trained |= others
        self.optimiser = torch.optim.AdamW(groups)
        self.average = ExponentialMovingAverage(self.trained, settings.ema) if settings.ema else None
        self.progress = Progress()
        self.identity = {"config": config.to_dict(), "data": data.digest()}
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Continue from the saved state, if there is one.

        Errors: `MiniClipError` if it belongs to another run, or to other captions or images.
        """
        state = load_training_state(self.folder)
        if state is not None:
            if state.get("data", self.identity["data"]) != self.identity["data"]:  # older states have none
                raise MiniClipError(
                    f"--resume: the captions or images differ from those that {self.folder} was trained on; "
                    "use the same --data, or another --out"
                )
            try:
                self.progress = Progress(**state["progress"])
                if self.progress == Progress():  # stopped between saving its first weights and its first state
                    return
                for name, value in state["trained"].items():
                    self.trained[name].data.copy_(value)
                self.optimiser.load_state_dict(state["optimiser"])
                if self.average is not None:
                    device = self.data.images.device
                    self.average.values = {name: device.put(value) for name, value in state["average"].items()}
                if state.get("scaler"):  # a run in float16
                    self.embedder.scaler.load_state_dict(state["scaler"])
            except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
                path = self.folder / "training_state.pt"
                raise MiniClipError(
                    f"{path} belongs to another run ({error!r}); choose another --out to start again"
                ) from error
            say(f"continuing after epoch {self.progress.epoch}, step {self.progress.step}")

    def save(self) -> None:
        """Save the state that `resume` needs."""
        self._saved_at = time.monotonic()
        if rank() > 0:
            return
        state = {
            "trained": {name: value.detach() for name, value in self.trained.items()},
            "average": self.average.values if self.average is not None else {},
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.embedder.scaler.state_dict(),
            "progress": vars(self.progress),
        }
        save_training_state(self.folder, _on_cpu(state) | self.identity)

    def run(self, track: Track | None = None) -> float:
        """Train to the end, write weights and metrics into the folder, and return the best mean recall on validation.

        `track` also receives the record of each epoch.
        """
        settings, progress = self.config.train, self.progress
        trained, total = (sum(p.numel() for p in ps) for ps in (self.trained.values(), self.model.parameters()))
        say(f"training {trained:,} of {total:,} parameters ({100 * trained / total:.2f} %)")
        steps = len(epoch_batches(self.data, settings, 1))
        with ProgressBar(
            initial=progress.epoch * steps + progress.step,
            total=settings.epochs * steps,  # so that the shown time left is that of the whole run
            smoothing=0,  # so that the time left includes validation between epochs
            unit="step",
            leave=False,
            disable=rank() > 0,
        ) as bar:
            for epoch in range(progress.epoch + 1, settings.epochs + 1):
                if epoch - progress.best_epoch > settings.patience and progress.best_epoch > 0:
                    say(f"no better mean recall for {settings.patience} epochs: stopping early")
                    break
                self._epoch(epoch, bar, track)
        return progress.best_recall

    def _epoch(self, epoch: int, bar: ProgressBar, track: Track | None) -> None:
        progress = self.progress
        batches = epoch_batches(self.data, self.config.train, epoch)
        started = time.monotonic() - progress.seconds
        bar.set_description(f"epoch {epoch}/{self.config.train.epochs}", refresh=False)
        self.model.train()  # dropout of the heads; the tower inputs set their mode below
        self.data.images.train(True)
        self.data.texts.train(True)
        for number in range(progress.step, len(batches)):
            loss = self.step(epoch, number, batches)
            progress.step, progress.loss_sum = number + 1, progress.loss_sum + loss
            progress.seconds = time.monotonic() - started
            self._show(bar, loss)
            bar.update()
            if time.monotonic() - self._saved_at > 60 * self.config.train.save_minutes:
                self.save()
        with self.average.applied() if self.average is not None else contextlib.nullcontext():
            recall = validate(self.model, self.data)
            recall |= validate_held_out(self.model, self.data, recall["mean_recall"])
            logit_scale = float(self.model.logit_scale.detach())
            score = recall["mean_recall"]
            if self.config.train.select == "all":
                score = recall.get("all_sources_recall", score)
            better = score > progress.best_recall or self.config.train.select == "last"
            if better:
                progress.best_epoch, progress.best_recall = epoch, score
                if rank() == 0:
                    if not (self.folder / "training_state.pt").exists():  # without it, a run cannot be resumed
                        save_training_state(self.folder, {"progress": vars(Progress()), **self.identity})
                    save_run(self.folder, self.config, self.model, recall)
        seconds = time.monotonic() - started
        mean_loss = round(progress.loss_sum / len(batches), 5)
        record: Record = {"epoch": epoch, "loss": mean_loss, "seconds": round(seconds, 3), **recall}
        record |= {"logit_scale": logit_scale, **self._learning_rates()}
        if rank() == 0:
            _add_record(self.folder / "metrics.jsonl", record)
            if track is not None:
                track(record)
        progress.epoch, progress.step, progress.loss_sum, progress.seconds = epoch, 0, 0.0, 0.0
        self.save()
        self._show(bar, mean_loss)
        say(
            f"epoch {epoch:>3}  loss {mean_loss:.4f}  mean recall {100 * recall['mean_recall']:.2f}  "
            f"{seconds:.1f} s{' *' if better else ''}"
        )

    def _show(self, bar: ProgressBar, loss: float) -> None:
        best = f"{100 * self.progress.best_recall:.2f}" if self.progress.best_epoch else "none yet"
        bar.set_postfix_str(f"loss {loss:.3f}, best recall {best}", refresh=False)

    def _learning_rates(self) -> Record:
        """Learning rates of the heads and of the top block of each trained tower, at the last step."""
        settings, first = self.config.train, self.optimiser.param_groups[0]
        factor = first["lr"] / first["peak_lr"]
        rates = {"learning_rate": settings.learning_rate * factor}
        for name, side in (("vision", self.data.images), ("text", self.data.texts)):
            if side.learns:
                rates[f"{name}_learning_rate"] = getattr(settings, f"{name}_learning_rate") * factor
        return rates

    def step(self, epoch: int, number: int, batches: list[np.ndarray]) -> float:
        """Take step `number` of an epoch; returns the loss."""
        settings = self.config.train
        step = (epoch - 1) * len(batches) + number
        factor = learning_rate_factor(step, settings.epochs * len(batches), settings.warmup_fraction)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak_lr"] * factor
        upcoming = [self.embedder.images_of(captions) for captions in batches[number : number + 2]]
        self.data.images.prefetch(np.concatenate(upcoming), view=epoch)
        torch.manual_seed(settings.seed * 1_000_003 + step)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.embedder.backward(batches[number], view=epoch)
        if not math.isfinite(loss):
            raise diverged(f"the loss became {loss} in epoch {epoch}")
        sum_gradients(list(self.trained.values()))
        scaler = self.embedder.scaler
        scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.trained.values(), settings.clip_norm)
        scaler.step(self.optimiser)
        scaler.update()
        self.model.logit_scale.data.clamp_(0, LOGIT_SCALE_MAX)
        if self.average is not None:
            self.average.update()
        return loss


@torch.inference_mode()
def fit_heads(model: DualEncoder, data: TrainingData) -> None:
    """Fit the standardisation of both heads to their tower's features on the training split."""
    for head, side, rows in (
        (model.vision_head, data.images, data.image_rows("train")),
        (model.text_head, data.texts, data.text_rows("train")),
    ):
        side.train(False)
        if side.learns and len(rows) > FITTED_ROWS:  # without a cache, using all rows would be slow
            rows = rows[np.linspace(0, len(rows) - 1, FITTED_ROWS, dtype=int)]
        parts = row_batches(rows, side.device, "fitting the heads to features")
        head.fit_features(torch.cat([side.features(part) for part in parts]))


def _on_cpu(state: Any) -> Any:
    """The same value with every tensor on the CPU, so that it loads on a machine without the device."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state


def _add_record(path: Path, record: Record) -> None:
    """Append the record. Drop records of this or later epochs, which an interrupted run may have written."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["epoch"] < record["epoch"]]
    text = "".join(line + "\n" for line in [*kept, json.dumps(record)])
    replace_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
