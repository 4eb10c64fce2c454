"""What the page asks of one gallery: a question in, an answer in words and cards out.

In: a `Searcher`, and questions. Out: `Answer` and `Detail`; what went wrong is a short message in them, never an
exception. Neither Gradio's components nor HTML are in here.
"""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.data.images import ImageSource
from miniclip.data.paths import printable
from miniclip.errors import MiniClipError
from miniclip.search.query import allowed_rows, compose
from miniclip.search.searcher import CaptionHit, Hit, Searcher
from miniclip.search.zero_shot import TEMPLATES, classify

from .previews import Previews
from .search_request import Places, SearchRequest
from .uploads import is_unreadable, read_uploaded_image, sentence

OPENMOJI_EXAMPLES = ("a cat", "a red car", "fruit", "musical instrument", "rainy weather", "a sad face")
PHOTO_EXAMPLES = ("a dog running", "people at the beach", "a child playing", "mountains", "a city street", "food")
EXAMPLES = 6
MAX_LABELS, MAX_TEMPLATES = 100, 20  # each label is embedded in each template
EMPTY = "Type a few words that say what the image should show, or drop an image."
CHANGED = "The gallery has changed: load the page again."


class NotReadyError(MiniClipError):
    """Captions are still being embedded; nothing is wrong with the image."""


@dataclass(frozen=True)
class Card:
    """One image as the page shows it: a name, a date, and the number of its preview."""

    row: int
    content_id: str
    title: str
    name: str  # below the gallery's folder; on a public page the file name alone
    score: float
    preview: str  # address of the thumbnail, relative to the page
    probability: float | None = None
    captions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ResultPage:
    """Cards, best first, below a heading; or a message that says why there are none."""

    heading: str = ""
    cards: list[Card] = field(default_factory=list)
    message: str = ""
    has_more: bool = False
    nothing_matches: bool = False
    is_unreadable: bool = False  # the question's image: another one is needed
    search_ms: float = 0.0


@dataclass(frozen=True)
class Detail:
    """One image, large."""

    card: Card
    large: str
    captions: list[str]
    taken: str  # "" where the file has no date
    path: str  # "" on a public page


class GallerySearch:
    """The page's questions to one index. Thread-safe: the page's users share it."""

    def __init__(self, searcher: Searcher, is_public: bool = False, previews: Previews | None = None) -> None:
        self.searcher, self.is_public = searcher, is_public
        self.index = searcher.index
        self.places = Places(self.index)
        self.previews = previews or Previews(self.index)
        self._preparing = threading.Lock()

    @property
    def is_openmoji(self) -> bool:
        """Whether the drawings of the built-in dataset are here: they need their attribution."""
        return any(path.parent.name.startswith("openmoji") for path in self.index.paths[:1])

    @property
    def examples(self) -> tuple[str, ...]:
        """Words to try that this gallery can answer: what its captions say, else what most photographs show."""
        if self.is_openmoji:
            return OPENMOJI_EXAMPLES
        if not self.searcher.has_captions:
            return PHOTO_EXAMPLES
        rows = np.linspace(0, len(self.index) - 1, 4 * EXAMPLES).astype(int)
        captions = (own[0].strip(" .") for row in rows if (own := self.index.captions[int(row)]))
        short = sorted(dict.fromkeys(captions), key=lambda text: abs(len(text) - 24))
        return tuple(short[:EXAMPLES])

    @property
    def status(self) -> str:
        """What is searched, with what, and what really runs, in one line."""
        encoders, skipped = self.searcher.encoders, len(self.index.skipped)
        left_out = f" ({skipped:,} could not be read)" if skipped else ""
        return f"{self.count} images{left_out} · bundle {printable(encoders.bundle.name)} · {encoders.running_on}"

    @property
    def count(self) -> str:
        return f"{len(self.index):,}"

    @property
    def days(self) -> tuple[str, str] | None:
        """The first and the last day that an image was taken on, where any says so."""
        days = self.index.taken[~np.isnat(self.index.taken)].astype("datetime64[D]")
        return (str(days.min()), str(days.max())) if len(days) else None

    def answer(self, question: SearchRequest) -> ResultPage:
        """The best images for any kind of question."""
        started = time.perf_counter()
        if question.is_empty:
            return ResultPage(message=EMPTY)
        try:
            upload = read_uploaded_image(question.image) if question.image else None
            query = self.places.query(question, upload, question.shown + 1)  # one more tells whether there are more
            found = self.searcher.search(query)
        except MiniClipError as error:
            return ResultPage(message=sentence(error), is_unreadable=is_unreadable(error))
        cards = [self.card(hit) for hit in found.hits[: question.shown]]
        if not cards:
            return ResultPage(message="No image is in that folder and from that time: loosen the filters.")
        elapsed_ms = 1000 * (time.perf_counter() - started)
        has_more = len(found.hits) > question.shown
        return ResultPage(self._heading(question), cards, "", has_more, found.nothing_matches, search_ms=elapsed_ms)

    def _heading(self, question: SearchRequest) -> str:
        words = f"“{question.words}”"
        if question.like:
            like = f"“{self.title(self.places.row_of(question.like))}”"
            return f"{words}, and like {like}" if question.words else f"More like {like}"
        if question.image:
            return f"{words}, and like your image" if question.words else "Most similar to your image"
        return f"Best matches for {words}"

    def similarity(self, question: SearchRequest) -> np.ndarray:
        """(N,) of every image to a question; rows that its filters leave out are NaN."""
        upload = read_uploaded_image(question.image) if question.image else None
        query = self.places.query(question, upload, 1)
        query.check(len(self.index))
        composed = compose(query, self.searcher.encoders, self.index)
        scores = self.index.image_embeds @ composed.query_embed[0]  # (N,)
        allowed = allowed_rows(query, self.index)
        return scores if allowed is None else np.where(allowed, scores, np.nan)

    def captions_of(self, image: ImageSource, top_k: int = 5) -> list[CaptionHit]:
        """The index's captions that describe an image best.

        Errors: `MiniClipError` where it cannot be read, or as of `prepare_captions`.
        """
        self.prepare_captions()
        return self.searcher.captions_for(image, top_k)

    def prepare_captions(self) -> None:
        """Embed every caption of the index, once: minutes of a large one.

        Errors: `NotReadyError` while another thread does it. Who waited would hold one of the page's few threads.
        """
        if self.searcher.captions_are_ready:
            return
        if not self._preparing.acquire(blocking=False):
            raise NotReadyError("The captions are still being prepared: try again in a minute.")
        try:
            self.searcher.prepare_captions()
        finally:
            self._preparing.release()

    def check_image(self, image: ImageSource) -> None:
        """`MiniClipError` where it cannot be read."""
        self.searcher.encoders.encode_images([image])

    def labels_of(
        self, image: ImageSource, labels: list[str], templates: list[str] | None = None
    ) -> list[tuple[str, float]]:
        """Labels with their probabilities, the likeliest first; `MiniClipError` as of `classify`."""
        if len(labels) < 2:
            raise MiniClipError("Give two labels or more, with commas between them.")
        if len(labels) > MAX_LABELS:
            raise MiniClipError(f"At most {MAX_LABELS} labels at a time.")
        templates = list(dict.fromkeys(templates or TEMPLATES))
        if len(templates) > MAX_TEMPLATES:
            raise MiniClipError(f"At most {MAX_TEMPLATES} templates at a time.")
        _, probabilities = classify([image], labels, self.searcher.encoders, templates=templates)
        return sorted(zip(labels, probabilities[0].tolist(), strict=True), key=lambda pair: -pair[1])

    def image(self, row: int) -> bytes:
        """An image of the index as bytes; `MiniClipError` when it has gone."""
        row = self.check_row(row)
        try:
            source = self.index.source(row)
        except MiniClipError:  # its reason names the place
            raise MiniClipError("This image has gone since it was indexed, or its storage is away.") from None
        return source if isinstance(source, bytes) else read_uploaded_image(source)

    def detail(self, row: int, score: float = 0.0, probability: float | None = None) -> Detail:
        """Everything that the large view shows of one image; `MiniClipError` for a row that is none."""
        row = self.check_row(row)
        captions = self.index.captions[row]
        card = self.card(Hit(row, score, self.index.paths[row], captions, probability))
        moment = self.index.taken[row]
        taken = "" if np.isnat(moment) else str(moment).replace("T", " ")[:16]
        path = "" if self.is_public else _from_home(printable(self.index.paths.text(row)))
        return Detail(card, self.previews.address(row, "large"), captions, taken, path)

    def row_on_page(self, values: Any) -> int:
        """The row that a browser means; `MiniClipError` where its page shows another gallery than this."""
        self.check_gallery(values)
        return self.check_row(values["row"])

    def check_gallery(self, values: Any) -> None:
        """Rows are numbers: on a page from before another gallery was opened, they mean other images."""
        if values.get("gallery") != self.previews.version:
            raise MiniClipError(CHANGED)

    def check_row(self, row: object) -> int:
        """A row as it came from a browser, which may send anything."""
        if not isinstance(row, int) or not 0 <= row < len(self.index):
            raise MiniClipError("There is no such image.")
        return row

    def title(self, row: int) -> str:
        captions = self.index.captions[row]
        return captions[0] if captions else printable(self.index.paths.name(row))

    def card(self, hit: Hit) -> Card:
        return Card(
            row=hit.row,
            content_id=self.places.content_id(hit.row),
            title=self.title(hit.row),
            name=printable(self.index.paths.name(hit.row) if self.is_public else self.places.name_of(hit.row)),
            score=hit.score,
            preview=self.previews.address(hit.row),
            probability=hit.probability,
            captions=hit.captions,
        )

    def card_of(self, row: int) -> Card:
        return self.card(Hit(row, 0.0, self.index.paths[row], self.index.captions[row]))


def _from_home(path: str) -> str:
    """A path as people say it: `~/Pictures/cat.jpg`."""
    home = str(Path.home()).rstrip("/") + "/"
    return f"~/{path.removeprefix(home)}" if path.startswith(home) else path
