"""An index of very many images, made without a model: embeddings are random, and files are links to a few images."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from miniclip.index.image_index import ImageIndex
from miniclip.index.settings import Settings
from miniclip.index.store import open_writer
from miniclip.inference.bundle import Bundle
from tests.support.photos import write_photo

FIRST_DAY = datetime(2015, 1, 1)
DIFFERENT = 40


def write_many(folder: Path, bundle: Bundle, dim: int, count: int, undated: int = 0) -> Path:
    """Write `count` images, one every 50 minutes from 2015 on, the last `undated` without a date; returns the index."""
    photos, index = folder / "photos", folder / "index"
    photos.mkdir(parents=True)
    files = [
        write_photo(folder / f"{number}.jpg", size=(96, 72), colour=(6 * number, 255 - 6 * number, 120))
        for number in range(DIFFERENT)
    ]
    paths = [str(photos / f"{number:06}.jpg") for number in range(count)]
    for number, path in enumerate(paths):
        os.link(files[number % DIFFERENT], path)
    taken = [FIRST_DAY + timedelta(minutes=50 * number) for number in range(count - undated)]
    embeds = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    rows = {
        "path": paths,
        "sha256": [number.to_bytes(32, "big") for number in range(count)],
        "bytes": [files[0].stat().st_size] * count,
        "mtime_ns": [0] * count,
        "indexed_at": [FIRST_DAY] * count,
        "width_px": [96] * count,
        "height_px": [72] * count,
        "taken": [*taken, *[None] * undated],
        "captions": [[]] * count,
        "embedding": pa.FixedSizeListArray.from_arrays(embeds.ravel(), dim),
        "file_type": ["jpeg"] * count,
        "camera": ["Canon EOS R5" if number % 3 == 0 else None for number in range(count)],
    }
    with open_writer(index, Settings(bundle.fingerprint, bundle.folder, str(photos)), dim) as writer:
        writer.put(rows, replace=False)
        ImageIndex.open(index, in_memory=False).write_derived_files()
    return index
