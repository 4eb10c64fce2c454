"""Embeddings of an index's captions, made on demand and stored beside it.

In: an index folder, captions, encoders. Out: `text_embeds`, and a file with them for the next time.

    INDEX/captions.npz    the bundle's fingerprint, `keys` (C, 16) that name the captions, `text_embeds` (C, D) float32

Captions take as long as images, minutes for Flickr30k. A caption is embedded once, even if the index changes. The file
is derived: if it is missing, damaged or of another bundle, captions are embedded again.
"""

import contextlib
import hashlib
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from miniclip.cache import write_cached
from miniclip.data.progress import ProgressBar
from miniclip.errors import MiniClipError
from miniclip.inference.onnx_encoders import OnnxEncoders

CAPTIONS = "captions.npz"
SAVE_EVERY_S = 30.0  # the most work that a stop can lose
TOGETHER = 1024  # captions; enough to form batches of similar length, few enough for the bar to move


def caption_embeds(folder: Path, captions: Sequence[str], encoders: OnnxEncoders) -> np.ndarray:
    """`text_embeds` (C, D) of `captions`: read from the index `folder`, or computed and, if possible, stored there."""
    keys = [hashlib.sha256(caption.encode("utf-8", "surrogateescape")).digest()[:16] for caption in captions]
    known, known_embeds = _read(folder / CAPTIONS, encoders)
    places = np.asarray([known.get(key, -1) for key in keys], dtype=np.int64)
    text_embeds = np.empty((len(captions), encoders.dim), dtype=np.float32)
    done = places >= 0
    text_embeds[done] = known_embeds[places[done]]
    missing = np.flatnonzero(~done)
    if len(missing) == 0:
        return text_embeds
    # no bar for a single step
    with ProgressBar(
        total=len(missing), desc="embedding captions, once", disable=None if len(missing) > TOGETHER else True
    ) as bar:
        saved = time.monotonic()
        for start in range(0, len(missing), TOGETHER):
            rows = missing[start : start + TOGETHER]
            text_embeds[rows] = encoders.encode_texts([captions[row] for row in rows])
            done[rows] = True
            bar.update(len(rows))
            if time.monotonic() - saved > SAVE_EVERY_S or rows[-1] == missing[-1]:
                with contextlib.suppress(MiniClipError):  # an index that cannot be written can still be searched
                    _write(folder / CAPTIONS, [keys[row] for row in np.flatnonzero(done)], text_embeds[done], encoders)
                saved = time.monotonic()
    return text_embeds


def _read(path: Path, encoders: OnnxEncoders) -> tuple[dict[bytes, int], np.ndarray]:
    """Rows by key, and their embeddings; none if the file is missing, damaged, or of another bundle."""
    nothing = np.empty((0, encoders.dim), dtype=np.float32)
    try:
        with np.load(path, allow_pickle=False) as stored:
            fingerprint, keys, text_embeds = (stored[name] for name in ("fingerprint", "keys", "text_embeds"))
        whole = keys.shape[1:] == (16,) and text_embeds.shape == (len(keys), encoders.dim)
    except Exception:  # zip, zlib and numpy raise different types for a damaged file
        return {}, nothing
    if not whole or str(fingerprint) != encoders.bundle.fingerprint:
        return {}, nothing
    return {key.tobytes(): row for row, key in enumerate(keys)}, text_embeds


def _write(path: Path, keys: Sequence[bytes], text_embeds: np.ndarray, encoders: OnnxEncoders) -> None:
    if not path.parent.is_dir():  # do not recreate an index that was deleted in the meantime
        return
    content = io.BytesIO()
    named = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)
    np.savez(content, fingerprint=encoders.bundle.fingerprint, keys=named, text_embeds=text_embeds)
    write_cached(path, content.getvalue())
