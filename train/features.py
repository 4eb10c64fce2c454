"""Features of a frozen backbone, computed once and kept on disk.

In: a tower and a list of pictures or captions. Out: a memory-mapped `(N, d)` float16 array. The cache lies under a key
of weights, preprocessing and inputs: any change of them is another cache. A killed pass continues where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from miniclip.bundle import write_json
from miniclip.cache import cache_folder
from miniclip.images import ImageTransform, load_batches
from miniclip.model import TextTower, VisionTower
from miniclip.tokenizer import Tokenizer

IMAGE_BATCH, TEXT_BATCH = 16, 64  # small picture batches stay near the caches
SAVE_EVERY = 32  # batches between two notes of how far the pass came


@dataclass(frozen=True)
class Features:
    """`values (N, d)` float16, memory-mapped; `skipped` has the rows whose picture could not be read."""

    values: np.ndarray
    skipped: dict[int, str]


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; elsewhere autocast would be slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over every parameter and buffer, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def tokens_hash(tokenizer: Tokenizer, texts: Sequence[str]) -> str:
    """SHA-256 over the tokens of all texts: another tokenizer or another limit of length gives another hash."""
    digest = hashlib.sha256()
    for start in range(0, len(texts), 1024):
        for array in tokenizer(texts[start : start + 1024]):
            digest.update(str(array.shape).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def image_features(tower: VisionTower, transform: ImageTransform, paths: Sequence[Path]) -> Features:
    """Pictures -> `image_features (N, d)`; the row of an unreadable picture is zero and listed in `skipped`."""
    tower.eval()
    cast(Any, tower).to(memory_format=torch.channels_last)  # twice as fast for convolutions on a CPU
    stamps = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    key = [weights_hash(tower), tower.pooling, transform.to_dict(), stamps]

    def encode(rows: np.ndarray, skip: Callable[[int, str], None]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        def skip_row(position: int, reason: str) -> None:
            skip(int(rows[position]), reason)

        for positions, pixel_values in load_batches([paths[r] for r in rows], transform, IMAGE_BATCH, skip_row):
            pixels = torch.from_numpy(pixel_values).contiguous(memory_format=torch.channels_last)
            yield rows[positions], tower(pixels).float().numpy()

    return _cached("image features", key, np.arange(len(paths)), tower.feature_dim, encode)


def text_features(tower: TextTower, tokenizer: Tokenizer, texts: Sequence[str]) -> Features:
    """Captions -> `text_features (N, d)`, computed in order of length so that little padding is."""
    tower = tower.eval()
    key = [weights_hash(tower), tower.pooling, tokens_hash(tokenizer, texts)]

    def encode(rows: np.ndarray, skip: Callable[[int, str], None]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), TEXT_BATCH):
            batch = rows[start : start + TEXT_BATCH]
            tokens = tokenizer([texts[row] for row in batch])
            yield batch, tower(*(torch.from_numpy(array) for array in tokens)).float().numpy()

    order = np.argsort(tokenizer.lengths(texts), kind="stable") if texts else np.arange(0)
    return _cached("text features", key, order, tower.feature_dim, encode)


def _cached(
    description: str,
    key: object,
    order: np.ndarray,
    dim: int,
    encode: Callable[[np.ndarray, Callable[[int, str], None]], Iterable[tuple[np.ndarray, np.ndarray]]],
) -> Features:
    """Fill or continue the cache of `key`, visiting rows in `order`."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_folder() / "features" / digest
    folder.mkdir(parents=True, exist_ok=True)
    progress_path = folder / "progress.json"
    progress: dict[str, Any] = (
        json.loads(progress_path.read_text()) if progress_path.exists() else {"done": 0, "skipped": {}}
    )
    done, skipped = int(progress["done"]), {int(row): why for row, why in progress["skipped"].items()}
    shape = (len(order), dim)
    if done == 0 or not (folder / "features.npy").exists():
        done, skipped = 0, {}
        values = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float16, shape=shape)
    else:
        values = np.load(folder / "features.npy", mmap_mode="r+" if done < len(order) else "r")

    def note(finished: int) -> None:
        values.flush()
        write_json(progress_path, {"done": finished, "skipped": skipped})

    position_of_row = np.argsort(order)
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())
    with (
        torch.inference_mode(),
        bfloat16,
        tqdm(total=len(order), initial=done, desc=description, disable=True if done == len(order) else None) as bar,
    ):
        finished = done
        for number, (rows, batch) in enumerate(encode(order[done:], skipped.__setitem__), 1):
            values[rows] = batch
            position = int(position_of_row[rows[-1]]) + 1
            bar.update(position - finished)
            finished = position
            if number % SAVE_EVERY == 0:
                note(finished)
        if done < len(order):
            note(len(order))
    return Features(values, skipped)
