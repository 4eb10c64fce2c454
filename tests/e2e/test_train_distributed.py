"""Several processes take the same step as one process with the whole batch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from miniclip.models.checkpoint import load_run

ROOT = Path(__file__).parents[2]

# run by every process: loss and gradients of the first step, without randomness and rounding
STEP = """
import sys
from pathlib import Path
import numpy as np, torch
import miniclip.models.device
from miniclip.models.config import load_config
from train.__main__ import start_model
from train.data import load_data
from train.distributed import begin, end, first_process_first, rank, sum_gradients
from train.trainer import Trainer, epoch_batches
from miniclip.inference.tokenizer import Tokenizer

miniclip.models.device.has_bfloat16 = lambda: False
config_path, data_path, out, *flags = sys.argv[1:]
config = load_config(Path(config_path), dict(flag.split("=") for flag in flags))
torch.manual_seed(0)
begin(miniclip.models.device.cpu_device())
with first_process_first():
    model, transform, text_folder = start_model(config)
    data = load_data([data_path], config, model, transform, Tokenizer.from_folder(text_folder), False)
for part in model.modules():
    if isinstance(part, torch.nn.Dropout):
        part.p = 0.0
trainer = Trainer(Path(out).parent, config, model, data)
model.train()
data.images.train(True)
data.texts.train(True)
torch.manual_seed(1)
loss = trainer.embedder.backward(epoch_batches(data, config.train, 1)[0], view=0)
sum_gradients(list(trainer.trained.values()))
if rank() == 0:
    grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in trainer.trained.items()}
    torch.save({"loss": torch.tensor(loss)} | grads, out)
end()
"""


# a training whose processes draw different random numbers before they make their heads
TRAINING = """
import torch
import train.__main__ as training
from miniclip.cli.command import run_command
from train.distributed import rank
from train.frozen_tower import weights_hash

make = training.start_model
def start_model(config):
    torch.rand(3 - rank())
    return make(config)
training.start_model = start_model

run = training.Trainer.run
def run_and_tell(trainer, track):
    best = run(trainer, track)
    print("weights", rank(), weights_hash(trainer.model), flush=True)
    return best
training.Trainer.run = run_and_tell
run_command(training.main)
"""


def launch(processes: int, *command: object) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    line = [sys.executable, *(torchrun if processes > 1 else []), *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    "flags",
    [
        ("train.setup=3",),
        ("train.setup=3", "train.micro_batch=5", "train.loss=sigmoid"),
        ("train.setup=2", "train.captions_per_image=2", "train.loss=triplet"),
    ],
)
def test_two_processes_have_the_loss_and_gradients_of_one(
    flags: tuple[str, ...], tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "step.py"
    script.write_text(STEP)
    found = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        done = launch(processes, script, tiny_config, captioned_folder, out, *flags)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(out, weights_only=True))
    one, two = found
    assert set(one) == set(two) and len(one) > 10
    assert one["loss"] > 0.01
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_two_processes_train_one_model_and_write_once(
    tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    out, script = tmp_path / "run", tmp_path / "training.py"
    script.write_text(TRAINING)
    done = launch(2, script, "--config", tiny_config, "--data", captioned_folder, "--out", out)
    assert done.returncode == 0, done.stderr
    hashes = dict(re.findall(r"weights (\d) ([0-9a-f]{64})", done.stdout))
    assert len(hashes) == 2 and hashes["0"] == hashes["1"]
    assert done.stdout.count("epoch   1") == 1
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4
    assert load_run(out).metrics["mean_recall"] > 0


def test_a_batch_smaller_than_the_processes_is_one_line(
    tiny_config: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    flags = ("--train.batch_size", "2", "--train.captions_per_image", "1")  # two images
    done = launch(
        3, "-m", "train", "--config", tiny_config, "--data", captioned_folder, "--out", tmp_path / "r", *flags
    )
    assert done.returncode != 0
    assert "error: --train.batch_size 2 is too small for 3 processes; raise it" in done.stderr
