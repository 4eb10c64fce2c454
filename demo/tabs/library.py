"""The tab Library: what is indexed and what runs, indexing another folder, duplicates, and the choice of the model.

It reads the server's folders, so a public page does not have it.
"""

from html import escape
from typing import Any

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.search.duplicates import find_duplicates

from .. import cards as markup
from ..app_state import AppState, Job
from ..page import Answering

MAX_GROUPS, MAX_IN_GROUP, MAX_SKIPPED = 40, 8, 500
MAX_COMPARED = 60_000  # images: ten times as many take a hundred times as long


def functions(app_state: AppState) -> tuple[Answering, ...]:
    def status(values: Any) -> dict[str, Any]:
        return {"html": _status(app_state), "models": _models(app_state), "job": _job(app_state.job)}

    def index(values: Any) -> dict[str, Any]:
        return {"job": _job(app_state.index(str(values["folder"])))}

    def progress(values: Any) -> dict[str, Any]:
        return {"job": _job(app_state.job)}

    def duplicates(values: Any) -> dict[str, Any]:
        search = app_state.search
        threshold = float(values["threshold"])
        if len(search.index) > MAX_COMPARED and threshold < 1:
            raise MiniClipError(f"Above {MAX_COMPARED:,} images only equal files are looked for: choose 1.00.")
        groups = find_duplicates(search.index, threshold)
        cards = [[search.card_of(row) for row in rows[:MAX_IN_GROUP]] for rows in groups[:MAX_GROUPS]]
        return {"html": markup.duplicates(cards, len(groups))}

    def use(values: Any) -> dict[str, Any]:
        return {"job": _job(app_state.use(str(values["bundle"]), str(values["precision"])))}

    return status, index, progress, duplicates, use


def _job(job: Job | None) -> dict[str, Any] | None:
    if job is None:
        return None
    skipped = [{"name": name, "reason": reason} for name, reason in job.skipped[:MAX_SKIPPED]]
    said = {"title": job.title, "done": job.done, "total": job.total, "report": job.report, "error": job.error}
    return {**said, "running": job.is_running, "skipped": skipped}


def _status(app_state: AppState) -> str:
    search = app_state.search
    encoders, skipped = search.searcher.encoders, search.index.skipped
    facts = [
        ("Pictures", search.count),
        ("From", escape(printable(app_state.images))),
        ("Index", escape(printable(str(search.index.folder)))),
        ("Model", f"{escape(app_state.name_of(encoders.bundle))}, {encoders.dim} dimensions"),
        ("Really runs", escape(encoders.running_on.removeprefix("running "))),
    ]
    if search.days:
        facts.append(("Taken", " to ".join(search.days)))
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    rows = "".join(
        f"<li><b>{escape(printable(problem.path.rsplit('/', 1)[-1]))}</b> {escape(problem.reason)}</li>"
        for problem in skipped[:MAX_SKIPPED]
    )
    left_out = f"<details><summary>{len(skipped):,} files were skipped</summary><ul>{rows}</ul></details>"
    return f"<dl>{listed}</dl>{left_out if skipped else '<p>No file was skipped.</p>'}"


def _models(app_state: AppState) -> str:
    encoders = app_state.search.searcher.encoders
    own = encoders.bundle.folder.resolve()
    rows = [
        _model_row(name, bundle, precision, bundle.folder.resolve() == own and precision == encoders.precision)
        for name, bundle in app_state.bundles().items()
        for precision in bundle.precisions
    ]
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("Model", '<span class="hidden-label">Choice</span>', "Recall", "Pictures/s", "Query", "Size")
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="Models">{table}</div>'


def _model_row(name: str, bundle: Bundle, precision: str, is_open: bool) -> str:
    """One line of the certificate; a dash where nothing was measured."""
    certificate: Any = bundle.certificate or {}
    measured = certificate.get("models", {}).get(precision, {})
    files = bundle.manifest.get("files", {})
    size = sum(files[name]["bytes"] for name in files if _belongs(name, precision))
    cells = [
        f"{100 * measured['mean_recall']:.1f} %" if "mean_recall" in measured else "–",
        f"{max(measured['images_per_s'].values()):.0f}" if "images_per_s" in measured else "–",
        f"{measured['text_query_p50_ms']:.1f} ms" if "text_query_p50_ms" in measured else "–",
        f"{size / 1e6:.0f} MB" if size else "–",
    ]
    choice = (
        '<span class="chosen">in use</span>'
        if is_open
        else f'<button type="button" data-bundle="{escape(name, quote=True)}" data-precision="{precision}"'
        f' aria-label="Use {escape(name, quote=True)} in {precision}">Use</button>'
    )
    tested = f' title="measured on {escape(str(certificate.get("data", "")), quote=True)}"' if measured else ""
    head = f'<th scope="row">{escape(name)} <span class="precision">{precision}</span></th>'
    return f"<tr{tested}>{head}{''.join(f'<td>{cell}</td>' for cell in (choice, *cells))}</tr>"


def _belongs(file: str, precision: str) -> bool:
    suffix = {"fp32": "_model.onnx", "fp16": "_model_fp16.onnx", "int8": "_model_quantized.onnx"}[precision]
    return file.endswith(suffix)
