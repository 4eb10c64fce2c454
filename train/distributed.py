"""Training in several processes, started by `torchrun` or `accelerate launch`.

Every process has the whole model and a share of each batch's images, with their captions. The processes gather their
embeddings, so that the loss has the negatives of the whole batch, and they sum their gradients. So a step equals that
of a single process. Without a launcher there is only one process, and the functions here do nothing.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn
from tqdm import tqdm

from miniclip.errors import MiniClipError
from miniclip.models.device import Device


def begin(device: Device) -> None:
    """Join the other processes, if there are any: with NCCL if each has its own card, otherwise with gloo.

    Errors: `MiniClipError` for several processes on an Apple GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        return
    if device.torch_device.type == "mps":
        raise MiniClipError("--device mps supports only one process; start it without torchrun, or use --device cpu")
    own_card = device.torch_device.type == "cuda" and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    # processes wait for the features, which process 0 may compute for hours
    distributed.init_process_group("cpu:gloo,cuda:nccl" if own_card else "gloo", timeout=timedelta(days=7))


def end() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number; process 0 writes the files."""
    return int(distributed.get_rank()) if distributed.is_initialized() else 0


def world() -> int:
    """The number of processes that train together."""
    return int(distributed.get_world_size()) if distributed.is_initialized() else 1


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """Process 0 runs the block first. The others run it afterwards and find the files and caches of process 0."""
    if rank() > 0:
        _meet()
    yield
    if rank() == 0 and world() > 1:
        _meet()


def _meet() -> None:
    """Wait for all processes, on the CPU: NCCL's barrier would keep the card busy."""
    distributed.all_reduce(torch.zeros(1))


def say(line: str) -> None:
    """Print a line in process 0 only, above the progress bar if there is one."""
    if rank() == 0:
        with tqdm.external_write_mode():
            print(line, flush=True)


def share_weights(model: nn.Module) -> None:
    """Give every process the parameters and buffers of process 0, because all steps are the same from then on."""
    if world() > 1:
        for value in model.state_dict().values():
            sent = value.contiguous()  # convolutions store their channels last
            distributed.broadcast(sent, src=0)
            value.copy_(sent)


def shares(count: int) -> list[np.ndarray]:
    """For each process, its part of `count` consecutive items."""
    return np.array_split(np.arange(count), world())


def gather(embeds: Tensor) -> Tensor:
    """Embeddings (B, D) of this process -> those of all processes in order (sum of B, D).

    Only this process's rows have a gradient. All processes compute the same loss, so their gradients only need a sum.
    """
    if world() == 1:
        return embeds
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]  # on the CPU, because lengths are needed there
    distributed.all_gather(sizes, torch.tensor([len(embeds)]))
    longest = max(int(size) for size in sizes)
    padded = torch.cat([embeds.detach(), embeds.new_zeros(longest - len(embeds), embeds.shape[1])])
    gathered = [torch.empty_like(padded) for _ in range(world())]
    distributed.all_gather(gathered, padded)
    parts = [part[: int(size)] for part, size in zip(gathered, sizes, strict=True)]
    parts[rank()] = embeds
    return torch.cat(parts)


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Sum the gradients of all processes for each parameter."""
    if world() > 1:
        for parameter in parameters:
            if parameter.grad is None:  # not used for this process's share
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
