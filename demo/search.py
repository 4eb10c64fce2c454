"""What the page's buttons call: a question in, an answer in words and cards out.

In: a `Searcher`, and questions (words, a picture of the index, an uploaded picture). Out: `Answer` and `Detail`; what
went wrong is a short message in them, never an exception. Neither Gradio nor HTML is in here.
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from demo.previews import Previews
from miniclip.errors import MiniClipError
from miniclip.search import CaptionHit, Hit, Searcher

PAGE_SIZE = 24  # fills 4 rows on a desktop; "show more" adds as many again
MAX_WORDS = 500  # characters; the tokenizer cuts far below that
OPENMOJI_EXAMPLES = ("a cat", "birthday party", "something to eat", "musical instrument", "rainy weather", "in love")
PHOTO_EXAMPLES = ("a dog running", "people at the beach", "a child playing", "mountains", "a city street", "food")


@dataclass(frozen=True)
class Question:
    """What was asked last, so that "show more" can ask it again. One of the three is set."""

    words: str = ""
    row: int | None = None
    picture: Path | None = None


@dataclass(frozen=True)
class Card:
    """One picture as the page shows it: never a path, only a file name and the number of its preview."""

    row: int
    title: str
    file_name: str
    score: float
    preview: str  # address of the thumbnail, relative to the page


@dataclass(frozen=True)
class Answer:
    """Cards, best first, below a heading; or a message that says why there are none."""

    heading: str = ""
    cards: list[Card] = field(default_factory=list)
    message: str = ""
    has_more: bool = False


@dataclass(frozen=True)
class Detail:
    """One picture, large. `found` is None until captions were asked for."""

    card: Card
    large: str
    captions: list[str]
    can_find_captions: bool
    found: list[CaptionHit] | None = None
    message: str = ""


class PictureSearch:
    """The page's questions to one index. Thread-safe: the page's users share it."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.previews = Previews(searcher.index.paths)
        self._captions_lock = threading.Lock()

    @property
    def is_openmoji(self) -> bool:
        """Whether the drawings of the built-in dataset are here: they need their attribution."""
        return any(path.parent.name.startswith("openmoji") for path in self.searcher.index.paths)

    @property
    def examples(self) -> tuple[str, ...]:
        return OPENMOJI_EXAMPLES if self.is_openmoji else PHOTO_EXAMPLES

    @property
    def status(self) -> str:
        """What is searched, with what, and what really runs, in one line."""
        encoders, skipped = self.searcher.encoders, len(self.searcher.index.skipped)
        left_out = f" ({skipped:,} could not be read)" if skipped else ""
        return f"{self.count} pictures{left_out} · bundle {encoders.bundle.name} · {encoders.running_on}"

    @property
    def count(self) -> str:
        return f"{len(self.searcher.index.paths):,}"

    def answer(self, question: Question, shown: int = PAGE_SIZE) -> Answer:
        """The best `shown` pictures for any kind of question."""
        try:
            heading, hits = self._ask(question, shown)
        except MiniClipError as error:
            return Answer(message=_sentence(error))
        has_more = shown < len(self.searcher.index.paths) - (question.row is not None)
        return Answer(heading, [self._card(hit) for hit in hits], has_more=has_more)

    def _ask(self, question: Question, shown: int) -> tuple[str, list[Hit]]:
        if question.picture is not None:
            return "Most similar pictures", self.searcher.by_image(_read(question.picture), shown)
        if question.row is not None:
            row = self.check_row(question.row)
            # the picture itself is always its own best match, and nobody asks for that
            hits = [hit for hit in self.searcher.by_row(row, shown + 1) if hit.row != row]
            return f"More like “{self._title(row)}”", hits[:shown]
        words = " ".join(question.words.split())[:MAX_WORDS]
        if not words:
            raise MiniClipError("Type a few words that say what the picture should show.")
        return f"Best matches for “{words}”", self.searcher.by_text(words, shown)

    def captions_of_upload(self, picture: Path) -> tuple[list[CaptionHit], str]:
        """The captions that describe an uploaded picture best, and a message if there are none."""
        try:
            found = self._find_captions(picture)
        except MiniClipError as error:
            return [], _sentence(error)
        return found, "" if found else "The pictures here have no captions to choose from."

    def detail(self, row: int, score: float, find_captions: bool = False) -> Detail:
        """Everything that the large view shows of one picture; `MiniClipError` for a row that is none."""
        row = self.check_row(row)
        found, message = None, ""
        if find_captions:
            try:
                found = self._find_captions(self.searcher.index.paths[row])
            except MiniClipError as error:
                message = _sentence(error)
        captions = self.searcher.index.captions[row]
        card = self._card(Hit(row, score, self.searcher.index.paths[row], captions))
        large = self.previews.address(row, "large")
        return Detail(card, large, captions, self.searcher.has_captions, found, message)

    def prepare_captions(self) -> None:
        """Embed the captions before anybody asks: tens of thousands take half a minute on a small CPU."""
        for path in self.searcher.index.paths:
            try:
                self._find_captions(path)
                return
            except MiniClipError:  # moved or damaged since it was indexed: the next one will do
                continue

    def check_row(self, row: object) -> int:
        """A row as it came from a browser, which may send anything."""
        if not isinstance(row, int) or not 0 <= row < len(self.searcher.index.paths):
            raise MiniClipError("There is no such picture.")
        return row

    def _find_captions(self, picture: Path) -> list[CaptionHit]:
        with self._captions_lock:  # the first call embeds every caption; nobody should start that twice
            return self.searcher.captions_for(_read(picture), top_k=5)

    def _title(self, row: int) -> str:
        captions = self.searcher.index.captions[row]
        return captions[0] if captions else self.searcher.index.paths[row].name

    def _card(self, hit: Hit) -> Card:
        return Card(hit.row, self._title(hit.row), hit.path.name, hit.score, self.previews.address(hit.row))


def _read(picture: Path) -> bytes:
    """A picture's bytes: the library's messages about bytes name no path, so none can reach the page."""
    try:
        return picture.read_bytes()
    except OSError:
        raise MiniClipError("This picture has gone since it was indexed.") from None


def _sentence(error: MiniClipError) -> str:
    """An error of the library as the page says it."""
    text = " ".join(str(error).split())
    if text.startswith("the picture: "):
        text = "This file cannot be shown or searched: " + text.removeprefix("the picture: ")
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
