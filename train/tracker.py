"""Write a run's numbers to TensorBoard or Weights & Biases.

In: the record of each epoch, as in `metrics.jsonl`. Out: event files in RUN/tensorboard (`tensorboard --logdir runs`
shows them), or a run in wandb. If writing to a tracker fails, one line says so, and training continues without it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError
from miniclip.models.config import Config

from .distributed import say

TRACKERS = ("tensorboard", "wandb", "none")
Record = dict[str, float]
Track = Callable[[Record], None]


def open_tracker(name: str, folder: Path, config: Config) -> Track:
    """A function that takes the record of each epoch.

    Errors: `MiniClipError` for an unknown name, or if the tracker is not installed or cannot be reached.
    """
    if name not in TRACKERS:
        raise MiniClipError(f"--tracker must be one of {', '.join(TRACKERS)}, got {name}")
    try:
        if name == "tensorboard":
            return TensorBoard(folder / "tensorboard")
        if name == "wandb":
            return _wandb(folder, config)
    except ImportError as error:
        raise MiniClipError(f"--tracker {name}: {error.name} is not installed: pip install {name}") from error
    return lambda _: None


def tag(name: str) -> str:
    """The name under which a number is shown; TensorBoard and wandb group names by the part before the slash."""
    groups = {"recall": "recall", "learning_rate": "learning rate"}
    return next((f"{group}/{name}" for part, group in groups.items() if part in name), f"training/{name}")


class TensorBoard:
    """Writes one event file per start of training, each record immediately.

    torch's `SummaryWriter` writes in a thread, which would end with a traceback on a full disk.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._events, self._summaries, self._writer = event_pb2, summary_pb2, RecordWriter
        self.path = folder / f"events.out.tfevents.{time.time_ns()}"  # TensorBoard sorts files by name
        self._started = self._failed = False

    def __call__(self, record: Record) -> None:
        if self._failed:
            return
        step = int(record["epoch"])
        values = [
            self._summaries.Summary.Value(tag=tag(name), simple_value=value)
            for name, value in record.items()
            if name != "epoch"
        ]
        events = [self._event(step=step, summary=self._summaries.Summary(value=values))]
        if not self._started:  # this event hides later steps that an interrupted run wrote
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            events = [self._event(file_version="brain.Event:2"), self._event(step=step, session_log=start), *events]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                for event in events:
                    self._writer(file).write(event.SerializeToString())
            self._started = True
        except OSError as error:
            self._failed = True  # after an incomplete event, TensorBoard reads nothing more
            say(f"cannot write {self.path}: {error.strerror}; continuing without TensorBoard")

    def _event(self, **content: Any) -> Any:
        return self._events.Event(wall_time=time.time(), **content)


def _wandb(folder: Path, config: Config) -> Track:
    """A run in wandb with the name of our run; a stopped run continues in the same folder."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(
            project="miniclip", name=folder.resolve().name, dir=folder, config=config.to_dict(), resume="auto"
        )
    except wandb.Error as error:
        raise MiniClipError(f"--tracker wandb: {error}; log in with wandb login, or use --tracker none") from error
    return lambda record: run.log({tag(name): value for name, value in record.items()}, step=int(record["epoch"]))
