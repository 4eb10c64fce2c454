"""Two bundles, or two precisions of one, asked the same words.

In: the open gallery and names such as `f8k · int8`. Out: what each finds, and how long its query takes. Precisions of
one bundle share the gallery's embeddings; another bundle is asked in the index that it made of the same pictures.
"""

import statistics
import time
from dataclasses import dataclass
from functools import lru_cache

from demo.desk import Desk
from demo.gallery import index_folder
from demo.search import Card
from miniclip.bundle import Bundle
from miniclip.encoders import OnnxEncoders
from miniclip.errors import MiniClipError
from miniclip.index import PictureIndex
from miniclip.query import Query
from miniclip.search import Searcher

TOP_K = 12
RUNS = 5  # the median of their times is shown


@dataclass(frozen=True)
class Side:
    """One of the two answers. Cards carry the open gallery's rows, so that a click opens them."""

    name: str
    cards: list[Card]
    query_ms: float
    common: int  # how many of its pictures the other found, too


def choices(desk: Desk) -> list[str]:
    """Every bundle and precision that can answer about the open gallery's pictures."""
    return [
        f"{name} · {precision}"
        for name, bundle in desk.bundles().items()
        if bundle.fingerprint == desk.search.index.fingerprint or _has_index(desk, bundle)
        for precision in bundle.precisions
    ]


def compare(desk: Desk, words: str, names: tuple[str, str]) -> list[Side]:
    """Both sides; `MiniClipError` for words that are empty, or a name that is no choice."""
    words = " ".join(words.split())
    if not words:
        raise MiniClipError("Type a few words to compare by.")
    known = choices(desk)
    if any(name not in known for name in names):
        raise MiniClipError("Choose two of the models in the lists.")
    answers = []
    for name in names:
        searcher = _searcher(desk, name)
        query = Query(texts=(words,), top_k=TOP_K, distinct=True)
        times_ms = []
        searcher.search(query)  # the first one allocates
        for _ in range(RUNS):
            started = time.perf_counter()
            hits = searcher.search(query).hits
            times_ms.append(1000 * (time.perf_counter() - started))
        answers.append((name, hits, statistics.median(times_ms)))
    paths = [{hit.path for hit in hits} for _, hits, _ in answers]
    common = len(paths[0] & paths[1])
    rows = desk.search.index.row_of
    return [
        Side(
            name,
            [
                desk.search.card(type(hit)(row, hit.score, hit.path, hit.captions, hit.probability))
                for hit in hits
                if (row := rows(hit.path)) is not None
            ],
            query_ms,
            common,
        )
        for name, hits, query_ms in answers
    ]


def _has_index(desk: Desk, bundle: Bundle) -> bool:
    return (index_folder(desk.images, bundle.fingerprint) / "index.json").exists()


def _searcher(desk: Desk, name: str) -> Searcher:
    bundle_name, _, precision = name.rpartition(" · ")
    bundle = desk.bundle_named(bundle_name)
    encoders = _encoders(str(bundle.folder), desk.provider, precision)
    if bundle.fingerprint == desk.search.index.fingerprint:
        return Searcher(desk.search.index, encoders)
    return Searcher(_index(str(index_folder(desk.images, bundle.fingerprint))), encoders)


@lru_cache(maxsize=4)  # a bundle's towers are some hundred MB in memory
def _encoders(folder: str, provider: str, precision: str) -> OnnxEncoders:
    encoders = OnnxEncoders(Bundle.open(folder), provider, precision)
    encoders.warm_up()
    return encoders


@lru_cache(maxsize=2)
def _index(folder: str) -> PictureIndex:
    return PictureIndex.open(folder)
