"""Two bundles, or two precisions of one, asked the same words.

In: the open gallery and names such as `f8k · int8`. Out: what each finds, and how long its query takes. Precisions of
one bundle share the gallery's embeddings; another bundle is asked in the index that it made of the same images.
"""

import statistics
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.store import versions_of
from miniclip.inference.bundle import Bundle
from miniclip.inference.encoders import OnnxEncoders
from miniclip.search.query import Query
from miniclip.search.searcher import Searcher

from .app_state import AppState
from .gallery_search import Card
from .index_location import index_folder

TOP_K = 12
RUNS = 5  # the median of their times is shown


@dataclass(frozen=True)
class ModelColumn:
    """One of the two answers. Cards carry the open gallery's rows, so that a click opens them."""

    name: str
    cards: list[Card]
    query_ms: float
    common: int  # how many of its images the other found, too
    absent: int  # images found that the open gallery does not have: its index is of another day


def choices(app_state: AppState) -> list[str]:
    """Every bundle and precision that can answer about the open gallery's images."""
    return [
        f"{name} · {precision}"
        for name, bundle in app_state.bundles().items()
        if bundle.fingerprint == app_state.search.index.fingerprint or _has_index(app_state, bundle)
        for precision in bundle.precisions
    ]


def compare(app_state: AppState, words: str, names: tuple[str, str]) -> list[ModelColumn]:
    """Both sides; `MiniClipError` for words that are empty, or a name that is no choice."""
    words = " ".join(words.split())
    if not words:
        raise MiniClipError("Type a few words to compare by.")
    known = choices(app_state)
    if any(name not in known for name in names):
        raise MiniClipError("Choose two of the models in the lists.")
    answers = []
    for name in names:
        searcher = _searcher(app_state, name)
        query = Query(texts=(words,), top_k=TOP_K, distinct=True)
        times_ms = []
        searcher.search(query)  # the first one allocates
        for _ in range(RUNS):
            started = time.perf_counter()
            hits = searcher.search(query).hits
            times_ms.append(1000 * (time.perf_counter() - started))
        paths = [searcher.index.paths.text(hit.row) for hit in hits]
        answers.append((name, dict(zip(paths, hits, strict=True)), statistics.median(times_ms)))
    common = len(answers[0][1].keys() & answers[1][1].keys())
    search = app_state.search
    sides = []
    for name, hits_at, query_ms in answers:
        rows = {path: row for path in hits_at if (row := search.index.row_of(path)) is not None}
        cards = [search.card(replace(hits_at[path], row=row)) for path, row in rows.items()]
        sides.append(ModelColumn(name, cards, query_ms, common, len(hits_at) - len(rows)))
    return sides


def _has_index(app_state: AppState, bundle: Bundle) -> bool:
    return (index_folder(app_state.images, bundle.fingerprint) / "index.json").exists()


def _searcher(app_state: AppState, name: str) -> Searcher:
    bundle_name, _, precision = name.rpartition(" · ")
    bundle = app_state.bundle_named(bundle_name)
    shown = app_state.search.searcher
    if (bundle.folder, precision) == (shown.encoders.bundle.folder, shown.encoders.precision):
        return shown
    model = (str(bundle.folder), _changed_ns(bundle.folder / "manifest.json"), app_state.provider, precision)
    if bundle.fingerprint == shown.index.fingerprint:
        return Searcher(shown.index, _encoders(*model), shown.gallery)  # its embeddings are ready to be searched
    folder = index_folder(app_state.images, bundle.fingerprint)
    return _other_searcher(str(folder), _changed_ns(versions_of(folder)), model)


def _changed_ns(place: Path) -> int:
    """What is kept of a file or a folder is good as long as this stays; 0 where it is not there."""
    try:
        return place.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4)  # a bundle's towers are some hundred MB in memory
def _encoders(folder: str, changed_ns: int, provider: str, precision: str) -> OnnxEncoders:
    encoders = OnnxEncoders(Bundle.open(folder), provider, precision)
    encoders.warm_up()
    return encoders


@lru_cache(maxsize=2)
def _other_searcher(folder: str, changed_ns: int, model: tuple[str, int, str, str]) -> Searcher:
    return Searcher(_index(folder, changed_ns), _encoders(*model))


@lru_cache(maxsize=2)
def _index(folder: str, changed_ns: int) -> ImageIndex:
    return ImageIndex.open(folder)
