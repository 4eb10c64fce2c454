"""The tab Compare: the same query with two bundles, or with two precisions of one.

In: the open gallery and two names such as `f8k · int8`. Out: the results of each, and the time of its query. Precisions
of one bundle share the gallery's embeddings; another bundle searches its own index of the same images.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from miniclip.index.image_index import ImageIndex
from miniclip.index.location import index_folder
from miniclip.index.store import versions_of
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.query import COMPARE_TOP_K, Query
from miniclip.search.searcher import Searcher

from .. import cards
from ..app_state import AppState
from ..errors import PageError
from ..form import Form, text
from ..gallery_search import Card
from ..i18n import t
from ..page import Handler

RUNS = 5  # the median of their times is shown


@dataclass(frozen=True)
class ModelColumn:
    """The results of one model. Its cards have rows of the open gallery, so that a click opens them."""

    name: str
    cards: list[Card]
    query_ms: float
    common: int  # images that both models found
    absent: int  # results that the open gallery lacks, because its index is older or newer than this model's


def handlers(app_state: AppState) -> Mapping[str, Handler]:
    def models(form: Form) -> dict[str, Any]:
        """The models that can be compared, and the open one."""
        encoders = app_state.search.searcher.encoders
        found = choices(app_state)
        is_open = f"{app_state.name_of(encoders.bundle)} · {encoders.precision}"
        return {"choices": found, "open": is_open, "hint": hint(app_state) if len(found) < 2 else ""}

    def both(form: Form) -> dict[str, Any]:
        columns = compare(app_state, text(form, "q"), (str(form.get("first")), str(form.get("second"))))
        return {"html": cards.render("compare", columns=columns)}

    return {"models": models, "both": both}


def choices(app_state: AppState) -> list[str]:
    """Every bundle and precision that can search the open gallery's images."""
    return [
        f"{name} · {precision}"
        for name, bundle in app_state.bundles().items()
        if _can_search(app_state, bundle)
        for precision in app_state.precisions_of(bundle)
    ]


def hint(app_state: AppState) -> str:
    """A sentence for the user: how to make a second model available."""
    others = [name for name, bundle in app_state.bundles().items() if not _can_search(app_state, bundle)]
    return t("only_one_indexed", name=others[0]) if others else t("only_one_model")


def compare(app_state: AppState, words: str, names: tuple[str, str]) -> list[ModelColumn]:
    """The results of both models; `PageError` for empty words, an unknown name, or equal names."""
    if not words:
        raise PageError(t("type_words_to_compare"))
    if names[0] == names[1] or not {*names} <= {*choices(app_state)}:
        raise PageError(t("two_different_models"))
    answers = []
    query = Query(texts=(words,), top_k=COMPARE_TOP_K, distinct=True)
    for name in names:
        searcher = _searcher(app_state, name)
        times_ms = []
        searcher.search(query)  # the first search allocates memory and is slower
        for _ in range(RUNS):
            started = time.perf_counter()
            hits = searcher.search(query).hits
            times_ms.append(1000 * (time.perf_counter() - started))
        paths = [searcher.index.paths.text(hit.row) for hit in hits]
        answers.append((name, dict(zip(paths, hits, strict=True)), statistics.median(times_ms)))
    common = len(answers[0][1].keys() & answers[1][1].keys())
    search = app_state.search
    columns = []
    for name, hits_at, query_ms in answers:
        rows = {path: row for path in hits_at if (row := search.index.row_of(path)) is not None}
        found = [search.card(replace(hits_at[path], row=row)) for path, row in rows.items()]
        columns.append(ModelColumn(name, found, query_ms, common, len(hits_at) - len(rows)))
    return columns


def _can_search(app_state: AppState, bundle: Bundle) -> bool:
    if bundle.fingerprint == app_state.search.index.fingerprint:
        return True
    return (index_folder(app_state.images, bundle.fingerprint) / "index.json").exists()


def _searcher(app_state: AppState, name: str) -> Searcher:
    bundle_name, _, precision = name.rpartition(" · ")
    bundle = app_state.bundle_named(bundle_name)
    shown = app_state.search.searcher
    if (bundle.folder, precision) == (shown.encoders.bundle.folder, shown.encoders.precision):
        return shown
    model = (str(bundle.folder), _changed_ns(bundle.folder / "manifest.json"), app_state.provider, precision)
    if bundle.fingerprint == shown.index.fingerprint:
        return Searcher(shown.index, _encoders(*model), shown.gallery)  # the open gallery's embeddings
    folder = index_folder(app_state.images, bundle.fingerprint)
    return _other_searcher(str(folder), _changed_ns(versions_of(folder)), model)


def _changed_ns(place: Path) -> int:
    """The modification time, which makes the caches below load a changed file again; 0 if the path does not exist."""
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
    return Searcher(ImageIndex.open(folder), _encoders(*model))
