"""Search in one gallery, which is an open index with its encoders.

In: a `Searcher` and queries. Out: `ResultPage`, plain values from which cards.py makes HTML. Errors are
`MiniClipError` with a sentence for the page.
"""

import io
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from miniclip.data.images import ImageSource, open_image
from miniclip.data.moments import clock, file_name, file_of, second_of
from miniclip.data.paths import printable
from miniclip.errors import MiniClipError
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.compose import allowed_rows, compose
from miniclip.search.language import language_hint
from miniclip.search.query import Query
from miniclip.search.searcher import CaptionHit, Hit, Searcher
from miniclip.search.zero_shot import TEMPLATES, classify

from .errors import PageError
from .form import Form
from .gallery_paths import GalleryPaths
from .i18n import t
from .previews import Previews
from .vocabulary import found_words

EXAMPLES = 6
MAX_LABELS, MAX_TEMPLATES = 100, 20  # each label is embedded in each template


@dataclass(frozen=True)
class Card:
    """One image as the page shows it."""

    row: int
    gallery: str  # version of the previews; it identifies the gallery to which the row number belongs
    content_id: str
    title: str
    name: str  # relative to the gallery's folder; on a public page the file name alone
    preview: str  # address of the thumbnail, relative to the page
    score: float = 0.0
    probability: float | None = None
    match: str = ""  # "strong", "likely" or "weak"; "" if cards are not ordered by match probability
    captions: list[str] = field(default_factory=list)
    by_name: bool = False  # its captions, file or folder names, or date contain the query's words
    text: str = ""  # lines of text in the image that contain words of the query
    second: float | None = None  # of a frame in its video

    @property
    def clock(self) -> str:
        return "" if self.second is None else clock(self.second)


@dataclass(frozen=True)
class ResultPage:
    """Cards, best first, below a heading."""

    heading: str
    cards: list[Card]
    has_more: bool = False
    nothing_matches: bool = False
    hint: str = ""  # about the language of the query
    missing: int = 0  # images found whose files no longer exist
    search_ms: float = 0.0


class GallerySearch:
    """Answers queries on one gallery. Thread-safe: all users of the page share it."""

    def __init__(self, searcher: Searcher, is_public: bool = False, previews: Previews | None = None) -> None:
        self.searcher, self.is_public = searcher, is_public
        self.index = searcher.index
        self.paths = GalleryPaths(self.index)
        self.previews = previews or Previews(self.index)
        self._preparing = threading.Lock()

    @property
    def is_openmoji(self) -> bool:
        """Whether the gallery is the built-in OpenMoji drawings, which need an attribution."""
        return any(path.parent.name.startswith("openmoji") for path in self.index.paths[:1])

    @cached_property
    def examples(self) -> tuple[str, ...]:
        """Example queries: the everyday words that this gallery's images match best."""
        return found_words(self.index, self.searcher.encoders, self.searcher.match, EXAMPLES)

    @property
    def status(self) -> str:
        """One line: how many images, which bundle, and what it runs on."""
        encoders, skipped = self.searcher.encoders, len(self.index.skipped)
        images, bundle = t("image_count", count=self.count), printable(encoders.bundle.name)
        if videos := self.index.frames.videos:
            images = t("images_and_videos", images=images, videos=t("video_count", count=videos))
        running = running_on(encoders)
        if skipped:
            return t("status_skipped", images=images, count=skipped, bundle=bundle, running=running)
        return t("status", images=images, bundle=bundle, running=running)

    @property
    def count(self) -> int:
        """The number of images, without the frames of videos."""
        return int(np.isnan(self.index.frames.second).sum())

    @property
    def days(self) -> tuple[str, str] | None:
        """The first and the last day on which an image was taken; None if no image has a date."""
        days = self.index.taken[~np.isnat(self.index.taken)].astype("datetime64[D]")
        return (str(days.min()), str(days.max())) if len(days) else None

    def search(self, query: Query, shown: int) -> ResultPage:
        """The `shown` best images; `MiniClipError` if the query has no answer."""
        started = time.perf_counter()
        # ask for one extra hit to see whether there are more; sort by date only after dropping it
        found = self.searcher.search(replace(query, top_k=shown + 1, sort="match"))
        if not found.hits:
            raise PageError(t("nothing_passes"))
        hits = self.searcher.in_order(found.hits[:shown], query.sort)
        existing = [hit for hit in hits if self.index.exists(hit.row)]
        by_words = not (query.images or query.rows or query.minus)  # otherwise cards are not ordered by probability
        cards = [self.card(hit if by_words else replace(hit, probability=None)) for hit in existing]
        return ResultPage(
            heading=self._heading(query),
            cards=cards,
            has_more=len(found.hits) > shown,
            nothing_matches=by_words and found.nothing_matches and bool(cards),
            hint=t("english_only") if language_hint(query.texts, self.searcher.encoders.tokenizer) else "",
            missing=len(hits) - len(existing),
            search_ms=1000 * (time.perf_counter() - started),
        )

    def _heading(self, query: Query) -> str:
        words = query.texts[0] if query.texts else ""
        if query.rows:
            title = self.title(query.rows[0])
            return t("words_and_like", words=words, title=title) if words else t("more_like", title=title)
        if query.images:
            return t("words_and_like_yours", words=words) if words else t("like_yours")
        return t("best_matches", words=words)

    def similarity(self, query: Query) -> np.ndarray:
        """(N,) cosine similarity of every image to a query; NaN for rows that its filters exclude."""
        query.check(len(self.index))
        composed = compose(query, self.searcher.encoders, self.index)
        scores = self.index.image_embeds @ composed.query_embed[0]  # (N,)
        allowed = allowed_rows(query, self.index)
        return scores if allowed is None else np.where(allowed, scores, np.nan)

    def captions_of(self, image: ImageSource, top_k: int = 5) -> list[CaptionHit]:
        """The index's captions that describe an image best; errors as in `prepare_captions`."""
        self.prepare_captions()
        return self.searcher.captions_for(image, top_k)

    def prepare_captions(self) -> None:
        """Embed all captions of the index, on the first call. A large index takes minutes.

        While another thread embeds them, `PageError` with `wait=True`: a request that waits would occupy one of the
        page's few threads.
        """
        if self.searcher.captions_are_ready:
            return
        if not self._preparing.acquire(blocking=False):
            raise PageError(t("captions_not_yet"), wait=True)
        try:
            self.searcher.prepare_captions()
        finally:
            self._preparing.release()

    def labels_of(
        self, image: ImageSource, labels: list[str], templates: list[str] | None = None
    ) -> list[tuple[str, float]]:
        """Labels with their probabilities, the most likely first; `MiniClipError` as in `classify`."""
        if len(labels) < 2:
            raise PageError(t("two_labels"))
        if len(labels) > MAX_LABELS:
            raise PageError(t("max_labels", number=MAX_LABELS))
        templates = list(dict.fromkeys(templates or TEMPLATES))
        if len(templates) > MAX_TEMPLATES:
            raise PageError(t("max_templates", number=MAX_TEMPLATES))
        _, probabilities = classify([image], labels, self.searcher.encoders, templates=templates)
        return sorted(zip(labels, probabilities[0].tolist(), strict=True), key=lambda pair: -pair[1])

    def image(self, row: int) -> bytes:
        """An image's bytes, or a frame as PNG; `PageError`, without its path, if it is gone."""
        try:
            source = self.index.source(row)
            if self.index.paths.file(row) != self.index.paths.text(row):
                stream = io.BytesIO()
                open_image(source).save(stream, "PNG", compress_level=1)
                return stream.getvalue()
            return source if isinstance(source, bytes) else source.read_bytes()
        except (MiniClipError, OSError) as error:
            raise PageError(t("image_unreachable")) from error

    def requested_row(self, form: Form) -> int:
        """The form's row; `PageError` if the index has no such row or the browser shows another gallery."""
        self.check_gallery(form)
        row = form.get("row")
        if not isinstance(row, int) or not 0 <= row < len(self.index):
            raise PageError(t("no_such_image"))
        return row

    def check_gallery(self, form: Form) -> None:
        """`PageError` with `gallery_changed=True` if the browser shows another gallery, whose rows differ."""
        if form.get("gallery") != self.previews.version:
            raise PageError(t("gallery_changed"), gallery_changed=True)

    def title(self, row: int) -> str:
        captions = self.index.captions[row]
        if captions:
            return captions[0]
        path = self.index.paths.text(row)
        second = second_of(path)
        if second is None:
            return printable(self.index.paths.name(row))
        return printable(t("frame_title", name=file_name(path), time=clock(second)))

    def card(self, hit: Hit) -> Card:
        return Card(
            row=hit.row,
            gallery=self.previews.version,
            content_id=self.paths.content_id(hit.row),
            title=self.title(hit.row),
            name=printable(self.index.paths.name(hit.row) if self.is_public else file_of(self.paths.name_of(hit.row))),
            preview=self.previews.address(hit.row),
            score=hit.score,
            probability=hit.probability,
            match=hit.match or "",
            captions=hit.captions,
            by_name=hit.by_name,
            text=hit.text,
            second=hit.second,
        )

    def card_of(self, row: int) -> Card:
        return self.card(self.searcher.hit(row))


def running_on(encoders: OnnxEncoders, key: str = "running_on") -> str:
    """`encoders.running_on` in the page's language. A note at its end stays in English."""
    start, _, note = encoders.running_on.partition(f" in {encoders.precision}")
    return t(key, device=start.removeprefix("running on the "), precision=encoders.precision, note=note)
