"""A user's actions on search results: copy, move, put into the trash, download as a ZIP archive.

In: rows of the open gallery, or the threshold of a search for duplicates. Out: a plan for the page to show, with an
identifier. A second request with this identifier carries out exactly this plan, and gets the outcome.
`demo.local_files` admits only local requests.
"""

import os
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from miniclip.data.paths import printable
from miniclip.index.relocate import Outcome, relocate, undo
from miniclip.index.relocation_plan import Plan, plan_relocation, plan_trash
from miniclip.search.best_copy import choose_best, plan_others
from miniclip.search.duplicates import find_duplicates

from . import cards
from .app_state import AppState
from .errors import PageError
from .form import Form, number
from .gallery_search import GallerySearch
from .i18n import t

MAX_SELECTED = 5000  # images of one plan
MAX_ARCHIVE_BYTES = 20 << 30
MAX_PLANS = 8  # kept until they are carried out; the oldest is dropped first
MAX_LISTED = 200  # lines of a plan that the page shows


@dataclass(frozen=True)
class Line:
    """One file in a list on the page. `kept` is the path of its best copy, which stays."""

    name: str
    note: str = ""
    kept: str = ""


class FileActions:
    """The plans of one page. Thread-safe; one plan is carried out at a time."""

    def __init__(self, app_state: AppState) -> None:
        self._app_state = app_state
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._lock, self._running = threading.Lock(), threading.Lock()

    def plan(self, form: Form) -> dict[str, Any]:
        """The action, its folder and its images -> the plan's identifier, and the plan as HTML."""
        gallery = self._app_state.search
        gallery.check_gallery(form)
        action = form.get("action")
        if form.get("duplicates"):
            plan = _plan_duplicates(gallery, form)
        elif action == "trash":
            plan = plan_trash(_paths(gallery, form))
        elif action in ("copy", "move"):
            plan = plan_relocation(_paths(gallery, form), str(form.get("folder") or ""), action)
        else:
            raise PageError(t("no_such_action"))
        html = cards.render(
            "plan",
            plan=plan,
            folder=printable(os.path.dirname(plan.steps[0].target)) if plan.steps else "",
            lines=[_line(plan, place) for place in range(min(len(plan.steps), MAX_LISTED))],
            refused=[Line(printable(path), reason) for path, reason in plan.refused[:MAX_LISTED]],
        )
        return {"html": html, "plan": self._keep(plan) if plan.steps else ""}

    def archive(self, form: Form) -> dict[str, Any]:
        """Images -> an identifier for `archived`; `PageError` if they are too large together."""
        gallery = self._app_state.search
        gallery.check_gallery(form)
        plan = plan_trash(_paths(gallery, form))  # only to know which of the files exist, and their sizes
        if not plan.steps:
            raise PageError(t("none_is_a_file"))
        if sum(step.state[0] for step in plan.steps) > MAX_ARCHIVE_BYTES:
            raise PageError(t("archive_too_large", number=MAX_ARCHIVE_BYTES >> 30))
        left_out = t("archive_left_out", count=len(plan.refused)) if plan.refused else ""
        return {"archive": self._keep(Plan("zip", plan.steps)), "notice": left_out}

    def archived(self, name: str) -> list[str]:
        """The paths of an archive; `PageError` for an unknown identifier."""
        with self._lock:
            plan = self._plans.get(name)
        if plan is None or plan.kind != "zip":
            raise PageError(t("download_expired"))
        return [step.source for step in plan.steps]

    def run(self, form: Form) -> dict[str, Any]:
        """Carry out a plan, once. The answer has the outcome as HTML, and the identifier for `undo`."""
        name = str(form.get("plan"))
        with self._lock:
            plan = self._plans.get(name)
            if plan is None or plan.kind == "zip":
                raise PageError(t("plan_expired"))
            del self._plans[name]
        with self._running:
            outcome = relocate(plan)
        can_undo = bool(outcome.done) and plan.kind != "trash"
        return {"html": _outcome(outcome, plan.kind), "undo": outcome.journal if can_undo else ""}

    def undo(self, form: Form) -> dict[str, Any]:
        """Undo a plan by the identifier from `run`."""
        journal = str(form.get("undo") or "")
        if not journal:
            raise PageError(t("nothing_to_undo"))
        with self._running:
            return {"html": _outcome(undo(journal), "undo")}

    def _keep(self, plan: Plan) -> str:
        name = secrets.token_hex(8)
        with self._lock:
            self._plans[name] = plan
            while len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        return name


def _plan_duplicates(gallery: GallerySearch, form: Form) -> Plan:
    threshold = number(form, "threshold", 0.97, 0.9, 1)
    choices = choose_best(find_duplicates(gallery.index, threshold), gallery.index, threshold)
    if not choices:
        raise PageError(t("none_twice"))
    to_trash = form.get("action") == "trash"
    folder = str(form.get("folder") or "")
    if not to_trash and not folder:
        raise PageError(t("name_the_folder"))
    return plan_others(choices, gallery.index, "" if to_trash else folder)


def _paths(gallery: GallerySearch, form: Form) -> list[str]:
    """The files of the form's rows. Frames of one video are one file."""
    rows = form.get("rows")
    if not isinstance(rows, list) or not rows:
        raise PageError(t("select_first"))
    if len(rows) > MAX_SELECTED:
        raise PageError(t("max_selected", number=MAX_SELECTED))
    paths = (gallery.index.paths.file(gallery.requested_row({**form, "row": row})) for row in rows)
    return list(dict.fromkeys(paths))


def _line(plan: Plan, place: int) -> Line:
    step = plan.steps[place]
    name, new = os.path.basename(step.source), os.path.basename(step.target)
    note = t("renamed", name=printable(new)) if new and new != name else ""
    return Line(printable(step.source if step.kept else name), note, printable(step.kept))


def _outcome(outcome: Outcome, kind: str) -> str:
    failed = [Line(printable(path), reason) for path, reason in outcome.failed[:MAX_LISTED]]
    return cards.render("outcome", done=len(outcome.done), kind=kind, failed=failed)
