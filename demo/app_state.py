"""The page's state: the open gallery, its bundle and precision, and the job that changes them.

In: an opened `Searcher`. Out: the current `GallerySearch`, and at most one `Job` that indexes another folder. When
the job is done, its gallery replaces the previous one for every user of the page.
"""

import contextlib
import threading
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from miniclip.data.paths import printable
from miniclip.errors import MiniClipError
from miniclip.index.image_index import ImageIndex
from miniclip.index.image_texts import read_texts
from miniclip.index.indexer import IndexReport, update_index, write_here
from miniclip.index.location import index_folder
from miniclip.index.settings import kept_exclude, read_settings
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.searcher import Searcher

from .browse import Browse
from .errors import PageError, logger, sentence
from .gallery_search import GallerySearch
from .i18n import decimal, t
from .image_map import ImageMap
from .previews import Previews

BUNDLE_FOLDERS = ("bundles", "models")  # where the commands write them


@dataclass
class Job:
    """One run of indexing. Its texts are in the language of the user who started it."""

    images: str
    title: str
    done: int = 0
    total: int = 0
    report: str = ""
    error: str = ""
    is_running: bool = True
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name and reason

    def show_progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def show_reading(self, done: int, total: int) -> None:
        self.title = t("reading_texts", folder=self.images)
        self.show_progress(done, total)


class AppState:
    """The gallery that the page shows. A public page never changes it.

    `is_local`: only a browser on this machine can open the page, so the page offers actions on files. A page behind a
    reverse proxy is neither public nor local.
    """

    def __init__(
        self, searcher: Searcher, provider: str = "auto", is_public: bool = False, is_proxied: bool = False
    ) -> None:
        self.provider, self.is_public = provider, is_public
        self.is_local = not (is_public or is_proxied)
        self.job: Job | None = None
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._put(searcher)

    def _put(self, searcher: Searcher, previews: Previews | None = None) -> None:
        search = GallerySearch(searcher, self.is_public, previews)
        self.map, self.browse = ImageMap(search), Browse(search)
        self.search = search
        if not searcher.captions_are_ready:  # tens of thousands take half a minute, so start before a user needs them
            threading.Thread(target=_prepare_captions, args=(search,), daemon=True).start()

    @property
    def images(self) -> str:
        """The source of the open index: a folder, a caption file, or `openmoji`."""
        return read_settings(self.search.index.folder).images

    @property
    def left_out(self) -> tuple[str, ...]:
        """The user's patterns for files that are not in the open index."""
        return read_settings(self.search.index.folder).exclude

    def patterns_of(self, images: str) -> tuple[str, ...]:
        """The patterns that a folder's index leaves out; none if the open bundle has not indexed the folder."""
        if not images.strip():
            return ()
        return kept_exclude(index_folder(images.strip(), self.search.searcher.encoders.bundle.fingerprint))

    def bundles(self) -> dict[str, Bundle]:
        """The open bundle, those in the same folder and in `BUNDLE_FOLDERS`, by unique names; no damaged ones."""
        opened = self.search.searcher.encoders.bundle
        found = {opened.folder.resolve(): opened}
        for parent in (opened.folder.resolve().parent, *map(Path, BUNDLE_FOLDERS)):
            for manifest in sorted(parent.glob("*/manifest.json")):
                try:
                    found.setdefault(manifest.parent.resolve(), Bundle.open(manifest.parent))
                except MiniClipError:
                    continue
        folders = list(found)
        return {
            bundle.name if bundle.is_from_hub else _name_among(folder, folders): bundle
            for folder, bundle in found.items()
        }

    def bundle_named(self, name: str) -> Bundle:
        bundles = self.bundles()
        if name not in bundles:
            raise PageError(t("no_bundle", name=name))
        return bundles[name]

    def name_of(self, bundle: Bundle) -> str:
        """The bundle's name in `bundles`."""
        folder = bundle.folder.resolve()
        return next(name for name, one in self.bundles().items() if one.folder.resolve() == folder)

    def precisions_of(self, bundle: Bundle) -> list[str]:
        """The bundle's precisions. The open bundle may also run in a mix of two of them, such as fp32+int8."""
        encoders = self.search.searcher.encoders
        is_open = bundle.folder.resolve() == encoders.bundle.folder.resolve()
        return list(dict.fromkeys([*bundle.precisions, *([encoders.precision] if is_open else [])]))

    def use(self, name: str, precision: str) -> Job | None:
        """Switch to another bundle or precision. Returns a job that indexes the images again if needed."""
        bundle = self.bundle_named(name)
        if bundle.fingerprint != self.search.index.fingerprint:
            return self.index(self.images, bundle, precision, self.left_out)
        encoders = OnnxEncoders(bundle, self.provider, precision)
        encoders.warm_up()
        with self._opening:
            # the same previews: the rows have not changed, so open pages stay valid
            self._put(Searcher(self.search.index, encoders), self.search.previews)
        return None

    def index(
        self,
        images: str,
        bundle: Bundle | None = None,
        precision: str | None = None,
        exclude: Sequence[str] | None = None,
    ) -> Job:
        """Index a folder, with the open bundle or another, and open it; `PageError` while another job runs.

        `exclude` replaces the folder's patterns for files to leave out; None keeps them.
        """
        if not images.strip():
            raise PageError(t("give_folder"))
        with self._lock:
            if self.job is not None and self.job.is_running:
                raise PageError(t("job_is_running"))
            self.job = job = Job(images.strip(), t("indexing", folder=images.strip()))
        context = copy_context()  # it holds the language of the request
        run = partial(context.run, self._run, job, bundle, precision, exclude)
        threading.Thread(target=run, name="indexing", daemon=True).start()
        return job

    def _run(self, job: Job, bundle: Bundle | None, precision: str | None, exclude: Sequence[str] | None) -> None:
        try:
            encoders = self.search.searcher.encoders
            if bundle is not None:
                encoders = OnnxEncoders(bundle, self.provider, precision or "auto")
            folder = index_folder(job.images, encoders.bundle.fingerprint)
            write = partial(write_here, progress=job.show_progress)
            read = partial(read_texts, progress=job.show_reading)
            report = update_index(job.images, encoders, folder, write, exclude=exclude, read=read)
            job.skipped = [(printable(Path(problem.path).name), problem.reason) for problem in report.skipped]
            opened = ImageIndex.open(folder)
            with self._opening:
                if bundle is None:  # keep a precision that was chosen in the meantime
                    encoders = self.search.searcher.encoders
                self._put(Searcher(opened, encoders))
            job.report = _report(report)
        except MiniClipError as error:
            job.error = sentence(error, about=t("failed", title=job.title))
        except Exception:
            logger.exception("%s failed", job.title)
            job.error = f"{t('failed', title=job.title)}. {t('internal_error')}"
        finally:
            job.is_running = False


def _report(report: IndexReport) -> str:
    """`str(report)` in the page's language."""
    counts = {"reused": report.reused, "skipped": len(report.skipped), "remarks": report.remarks}
    counts |= {"with_text": report.with_text, "undated": report.undated}
    parts = [t("report_added", count=report.added), t("report_kept", count=report.kept)]
    parts += [t("report_removed", count=report.removed)]
    parts += [t(f"report_{name}", count=count) for name, count in counts.items() if count]
    speed = t("report_speed", speed=decimal(report.added / report.seconds)) if report.added and report.seconds else ""
    return ", ".join(parts) + (f" ({speed})" if speed else "")


def _prepare_captions(search: GallerySearch) -> None:
    with contextlib.suppress(PageError):  # another thread already prepares them
        search.prepare_captions()


def _name_among(folder: Path, folders: list[Path]) -> str:
    """A folder's name, with the fewest parents that make it unique among `folders`."""
    others = [other for other in folders if other != folder]
    for length in range(1, len(folder.parts)):
        parts = folder.parts[-length:]
        if all(other.parts[-length:] != parts for other in others):
            return printable("/".join(parts))
    return printable(str(folder))
