"""Quality and speed of encoders, measured side by side.

In: named `DualEncoders` and a split. Out: one row of figures a model. Speeds are taken in turns, a pass of each model
after the other, so that a noisy machine is noisy for all of them; the median pass counts.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from miniclip.encoders import CPU, DualEncoders
from miniclip.errors import MiniClipError
from miniclip.evaluation import SplitEmbeds
from miniclip.retrieval import Gallery

IMAGE_BATCHES = (1, 8, 32)
TEXT_BATCHES = (1, 8, 32, 64)
GALLERY_ROWS = 10_000
QUERY_REPEATS = 40
TURN_S = 0.25  # a model's turn is as many passes as fit, at least one


def quality(embeds: SplitEmbeds, reference: SplitEmbeds, protocol: str) -> dict[str, Any]:
    """Recalls, and how far the embeddings and rankings are from the reference's."""
    if embeds.table.image_paths != reference.table.image_paths:
        raise MiniClipError("a picture became unreadable during the benchmark; run it again")
    pairs = [(embeds.image_embeds, reference.image_embeds), (embeds.text_embeds, reference.text_embeds)]
    cosines = [(ours * theirs).sum(axis=1) for ours, theirs in pairs]
    return {
        **embeds.recalls(protocol),
        "largest_difference": float(max(np.abs(ours - theirs).max() for ours, theirs in pairs)),
        "smallest_cosine": float(min(cosine.min() for cosine in cosines)),
        "image_cosine_p1": float(np.percentile(cosines[0], 1)),
        "text_cosine_p1": float(np.percentile(cosines[1], 1)),
        "top_10_overlap": _overlap(embeds, reference),
    }


def _overlap(embeds: SplitEmbeds, reference: SplitEmbeds) -> float:
    """Share of the reference's ten best pictures that are among ours, mean over all captions."""
    ours, theirs = (Gallery(e.image_embeds).top_k(e.text_embeds, 10)[1] for e in (embeds, reference))
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(ours, theirs, strict=True)]))


def speeds(models: dict[str, DualEncoders], embeds: SplitEmbeds, rounds: int) -> dict[str, dict[str, Any]]:
    """Pictures (decoded already) and texts a second by batch size, and latency of single queries, a row a model."""
    table = embeds.table
    first = next(iter(models.values()))
    paths = [table.image_paths[row % len(table.image_paths)] for row in range(max(IMAGE_BATCHES))]
    pixel_values = np.stack([first.transform.load(path) for path in paths])
    step = max(1, len(table.captions) // max(TEXT_BATCHES))
    texts = (table.captions[::step] * max(TEXT_BATCHES))[: max(TEXT_BATCHES)]
    rows: dict[str, dict[str, Any]] = {name: {} for name in models}

    for key, batches, work in (
        ("images_per_s", IMAGE_BATCHES, lambda e, n: e.embed_pixels(pixel_values[:n])),
        ("texts_per_s", TEXT_BATCHES, lambda e, n: e.encode_texts(texts[:n])),
    ):
        for size in batches:
            passes = {name: _bind(work, encoders, size) for name, encoders in models.items()}
            for name, seconds in in_turns(passes, rounds).items():
                rows[name].setdefault(key, {})[str(size)] = size / seconds

    generator = np.random.default_rng(0)
    noise = generator.standard_normal((GALLERY_ROWS, embeds.image_embeds.shape[1]), dtype=np.float32)
    image_embeds = np.concatenate([embeds.image_embeds, noise / np.linalg.norm(noise, axis=1, keepdims=True)])
    picture = paths[0].read_bytes()
    for name, encoders in models.items():
        gallery = Gallery(image_embeds[:GALLERY_ROWS], getattr(encoders, "providers", (CPU,)))
        for kind, queries, encode in (
            ("text_query", texts, lambda query, e=encoders: e.encode_texts([query])),
            ("image_query", [picture], lambda query, e=encoders: e.encode_images([query])[1]),
        ):
            latency_ms = [_query_ms(encode, gallery, queries[i % len(queries)]) for i in range(QUERY_REPEATS)]
            rows[name][f"{kind}_p50_ms"] = float(np.percentile(latency_ms[3:], 50))
            rows[name][f"{kind}_p95_ms"] = float(np.percentile(latency_ms[3:], 95))
    return rows


def _bind(work: Callable[[DualEncoders, int], object], encoders: DualEncoders, size: int) -> Callable[[], object]:
    return lambda: work(encoders, size)


def _query_ms(encode: Callable[[Any], np.ndarray], gallery: Gallery, query: Any) -> float:
    """From words, or a file's bytes, to the ten best of the gallery."""
    started = time.perf_counter()
    gallery.top_k(encode(query), 10)
    return 1000 * (time.perf_counter() - started)


def in_turns(passes: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of one pass of each, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for run_once in passes.values():
        run_once()
    for _ in range(rounds):
        for name, run_once in passes.items():
            until = time.perf_counter() + TURN_S
            while True:
                started = time.perf_counter()
                run_once()
                ended = time.perf_counter()
                seconds[name].append(ended - started)
                if ended > until:
                    break
    return {name: float(np.median(values)) for name, values in seconds.items()}
