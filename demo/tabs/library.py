"""The tab Library: the index, indexing another folder, duplicates, and the choice of the model.

It reads the server's folders, so a public page does not have it.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from miniclip.data.paths import printable
from miniclip.inference.bundle import Bundle
from miniclip.inference.layouts import TOWERS, onnx_name
from miniclip.inference.precision import of_tower
from miniclip.search.duplicates import find_duplicates

from .. import cards
from ..app_state import AppState, Job
from ..errors import PageError
from ..form import Form, number
from ..gallery_search import running_on
from ..i18n import day, decimal, t
from ..page import Handler

MAX_GROUPS, MAX_IN_GROUP, MAX_SKIPPED = 40, 8, 500
MAX_PATTERNS = 10_000  # characters
MAX_COMPARED = 60_000  # images: ten times as many take a hundred times as long


def handlers(app_state: AppState) -> Mapping[str, Handler]:
    def status(form: Form) -> dict[str, Any]:
        return {"html": _status(app_state), "models": _models(app_state), "job": _job(app_state.job)}

    def index(form: Form) -> dict[str, Any]:
        lines = form.get("exclude")
        exclude = None if lines is None else [line for line in str(lines)[:MAX_PATTERNS].splitlines() if line.strip()]
        return {"job": _job(app_state.index(str(form.get("folder") or ""), exclude=exclude))}

    def patterns(form: Form) -> dict[str, Any]:
        """The patterns of files that an earlier index of a folder leaves out."""
        return {"patterns": "\n".join(app_state.patterns_of(str(form.get("folder") or "")))}

    def duplicates(form: Form) -> dict[str, Any]:
        gallery = app_state.search
        threshold = number(form, "threshold", 0.97, 0.9, 1)
        if len(gallery.index) > MAX_COMPARED and threshold < 1:
            raise PageError(t("too_many_to_compare", number=MAX_COMPARED, threshold=decimal(1, 2)))
        found = find_duplicates(gallery.index, threshold)
        if not found:
            return {"html": cards.render("message", text=t("none_twice"))}
        groups = [[gallery.card_of(row) for row in rows[:MAX_IN_GROUP]] for rows in found[:MAX_GROUPS]]
        version = gallery.previews.version if app_state.is_local else ""
        html = cards.render("duplicates", groups=groups, total=len(found), threshold=threshold, gallery=version)
        return {"html": html}

    return {
        "status": status,
        "index": index,
        "patterns": patterns,
        "progress": lambda form: {"job": _job(app_state.job)},
        "duplicates": duplicates,
        "use": lambda form: {"job": _job(app_state.use(str(form.get("bundle")), str(form.get("precision"))))},
    }


def _job(job: Job | None) -> dict[str, Any] | None:
    if job is None:
        return None
    html = cards.render("job", job=job, max_skipped=MAX_SKIPPED)
    return {"html": html, "running": job.is_running, "failed": bool(job.error)}


def _status(app_state: AppState) -> str:
    gallery = app_state.search
    encoders = gallery.searcher.encoders
    facts = [
        (t("images"), decimal(gallery.count)),
        *([(t("videos"), decimal(gallery.index.frames.videos))] if gallery.index.frames else []),
        (t("gallery_from"), printable(app_state.images)),
        (t("index"), printable(str(gallery.index.folder))),
        (t("model"), t("model_dimensions", name=app_state.name_of(encoders.bundle), dim=encoders.dim)),
        (t("runs"), running_on(encoders, "runs_on")),
    ]
    if left_out := app_state.left_out:
        facts.append((t("left_out"), printable(", ".join(left_out))))
    if gallery.days:
        first, last = map(date.fromisoformat, gallery.days)
        facts.append((t("taken"), t("day_range", first=day(first), last=day(last))))
    skipped = [(printable(one.path.rsplit("/", 1)[-1]), one.reason) for one in gallery.index.skipped]
    return cards.render("status", facts=facts, skipped=skipped, max_skipped=MAX_SKIPPED)


def _models(app_state: AppState) -> str:
    encoders = app_state.search.searcher.encoders
    own = (encoders.bundle.folder.resolve(), encoders.precision)
    models = [
        _model(name, bundle, precision, is_open=(bundle.folder.resolve(), precision) == own)
        for name, bundle in app_state.bundles().items()
        for precision in app_state.precisions_of(bundle)
    ]
    return cards.render("models", models=models)


def _model(name: str, bundle: Bundle, precision: str, is_open: bool) -> dict[str, Any]:
    """One row of the table: figures of the bundle's certificate, "" if it was not measured."""
    certificate: Any = bundle.certificate or {}
    measured = certificate.get("models", {}).get(precision, {})
    files = bundle.manifest.get("files", {})
    size = sum(files.get(onnx_name(tower, of_tower(precision, tower)), {}).get("bytes", 0) for tower in TOWERS)
    figures = [
        f"{decimal(100 * measured['mean_recall'], 1)} %" if "mean_recall" in measured else "",
        decimal(max(measured["images_per_s"].values())) if "images_per_s" in measured else "",
        f"{decimal(measured['text_query_p50_ms'], 1)} ms" if "text_query_p50_ms" in measured else "",
        f"{decimal(size / 1e6)} MB" if size else "",
    ]
    measured_on = str(certificate.get("data", "")) if measured else ""
    return {
        "name": name,
        "precision": precision,
        "is_open": is_open,
        "measured_on": measured_on,
        "figures": figures,
    }
