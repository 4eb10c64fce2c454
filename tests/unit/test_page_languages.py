"""The page's words: complete in every language, used, and nowhere else than in the tables."""

import ast
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from demo import cards
from demo.app_state import AppState, _report
from demo.i18n import TABLES, day_and_time, decimal, in_language, language_of, month, t
from demo.page import answering, split_script
from demo.request_filter import RequestFilter
from demo.tabs import search
from miniclip.index.indexer import IndexReport
from miniclip.search.filters import FILTERS
from miniclip.search.language import HINT
from miniclip.search.names import MONTHS
from miniclip.search.searcher import Searcher

DEMO = Path(__file__).parents[2] / "demo"
OWN_FILES = sorted(
    path
    for kind in ("*.py", "tabs/*.py", "static/*.html", "static/*.js", "static/*.css", "templates/*.html")
    for path in DEMO.glob(kind)
)
USED = re.compile(r"""(?<!\w)(?:t|TRANSLATIONS)\(\s*f?["'`](\w+)""")
QUOTED = re.compile(r"""["'`](\w+)["'`]""")
# words that both languages share, and marks
SAME_IN_GERMAN = {"decimal_mark", "group_mark", "details", "zoom", "name", "index", "recall", "place_of", "videos"}
NOT_WORDS = {"miniclip", "pca", "px", "esc"}
# for the terminal, for programs, or words for the model
NOT_THE_PAGE = {"__main__", "public_api", "space", "vocabulary"}
NOT_SHOWN = {"False", "Roboto", "Menlo", "Consolas", "running on the ", "internal error in “%s”"}
NOT_SHOWN |= {"log in first", "no such preview"}
SHOWN_ATTRIBUTES = ("alt", "aria-label", "placeholder", "title")
EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
WORD = re.compile(r"[A-Za-z]{2,}")
OTHER_LANGUAGES = sorted(set(TABLES) - {"en"})


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_every_language_has_every_key_with_the_same_values(language: str) -> None:
    english, other = TABLES["en"], TABLES[language]
    assert set(other) == set(english)
    assert {key: placeholders(text) for key, text in other.items()} == {
        key: placeholders(text) for key, text in english.items()
    }


def test_german_differs_from_english_except_for_words_of_both() -> None:
    same = {key for key, text in TABLES["en"].items() if TABLES["de"][key] == text}
    assert same <= SAME_IN_GERMAN


def test_every_key_is_used_and_every_used_key_exists() -> None:
    """A key that ends in an underscore is the beginning of several, as in `t(f"match_{match}")`."""
    keys, code = set(TABLES["en"]), "\n".join(path.read_text(encoding="utf-8") for path in OWN_FILES)
    used, quoted = set(USED.findall(code)), set(QUOTED.findall(code))
    prefixes = tuple(key for key in used if key.endswith("_"))
    assert used - keys - set(prefixes) == set()
    assert [prefix for prefix in prefixes if not any(key.startswith(prefix) for key in keys)] == []
    assert {key for key in keys if key.removesuffix("_one") not in quoted and not key.startswith(prefixes)} == set()


def test_every_filter_has_a_label() -> None:
    assert {f"filter_{name}" for name in FILTERS} <= set(TABLES["en"])


class ShownText(HTMLParser):
    """Collects what people read or hear of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shown += [value for name, value in attrs if name in SHOWN_ATTRIBUTES and value]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def words_of_html(html: str) -> list[str]:
    """Words of the document, and literals with a capital letter or a space in its expressions."""
    reader = ShownText()
    reader.feed(EXPRESSION.sub("", html))
    literals = (text for one in EXPRESSION.findall(html) for text in re.findall(r'"([^"]*)"', one))
    return WORD.findall(" ".join([*reader.shown, *(text for text in literals if re.search(r"^[A-Z]| ", text))]))


def words_of_script(script: str) -> Iterator[str]:
    """Literals of words with spaces between them: names in code have none, and selectors have other signs."""
    script = re.sub(r"(^|\s)//.*", "", script)
    for literal in re.findall(r"'([^'\n]*)'|`([^`]*)`", script):
        text = re.sub(r"\$\{[^}]*\}", "x", "".join(literal))
        if re.fullmatch(r"[\w“][\w“”,.:?!…×’ ]*[A-Za-z]{2,}([,.:]? [\w“(][\w“”,.:?!…×’() ]*|…)", text):
            yield text


def words_of_module(module: str) -> Iterator[str]:
    """Literals of words, or of one word with a capital letter; docstrings are for other readers."""
    nodes = list(ast.walk(ast.parse(module)))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, documented)}
    literals = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    for text in literals:
        if text not in docstrings and re.search(r"^[A-Z][a-z]+$|[A-Za-z]{2,} [a-z]{2,}", text):
            yield text


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_word_of_the_page_is_outside_the_tables(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        html, script = split_script(text)
        assert [word for word in words_of_html(html) if word.lower() not in NOT_WORDS] == []
        assert list(words_of_script(script)) == []
    elif path.suffix == ".js":
        assert list(words_of_script(text)) == []
    elif path.suffix == ".css":
        assert re.findall(r"content: \"[^\"]*[A-Za-z]{2}[^\"]*\"", text) == []
    elif path.stem not in NOT_THE_PAGE:
        assert [word for word in words_of_module(text) if word not in NOT_SHOWN and not word.startswith("<svg")] == []


def test_values_are_filled_in_and_grouped_as_the_language_does_it() -> None:
    assert (t("image_count", count=1), t("image_count", count=1234)) == ("1 image", "1,234 images")
    assert (decimal(1234.5, 1), month(2024, 7)) == ("1,234.5", "July 2024")
    assert day_and_time(datetime(2024, 7, 1, 9, 5)) == "2024-07-01 09:05"
    with in_language("de"):
        assert (t("image_count", count=1), t("image_count", count=1234)) == ("1 Bild", "1.234 Bilder")
        assert (decimal(1234.5, 1), month(2024, 7)) == ("1.234,5", "Juli 2024")
        assert day_and_time(datetime(2024, 7, 1, 9, 5)) == "01.07.2024, 09:05"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        *(("", "en"), ("de-DE,de;q=0.9,en;q=0.8", "de"), ("DE", "de"), ("en-US,de;q=0.5", "en")),
        *(("fr-FR,de;q=0.9", "en"), ("*", "en"), ("de;q=0.5", "de"), ("../de", "en"), ("é", "en")),
    ],
)
def test_the_first_language_of_the_browser_counts(header: str, language: str) -> None:
    assert language_of(header) == language


def test_values_are_escaped_in_html_except_those_that_are_html() -> None:
    template = "{% macro bold(text) %}<b>{{ text }}</b>{% endmacro %}{{ t('plan_move', count=2, folder=folder) }}"
    for language in TABLES:
        with in_language(language):
            text = cards._templates.from_string(template).render(folder="<script>")
            html = cards._templates.from_string(template.replace("=folder", "=bold(folder)")).render(folder="<script>")
        assert "<" not in text and "&lt;script&gt;" in text
        assert "<b>&lt;script&gt;</b>" in html


def test_a_request_is_answered_in_its_language_and_the_next_one_in_its_own() -> None:
    def answer(request: Request) -> JSONResponse:
        return JSONResponse({"text": t("search_first")})

    app: Any = Starlette(routes=[Route("/config", answer)], middleware=[Middleware(RequestFilter)])
    app.auth, app.auth_dependency = None, None
    client = TestClient(app)
    german, english = TABLES["de"]["search_first"], TABLES["en"]["search_first"]
    for header, text in (("de-DE", german), ("en", english), ("de", german), ("", english)):
        assert client.get("/config", headers={"Accept-Language": header}).json() == {"text": text}
    assert client.get("/nothing", headers={"Accept-Language": "de"}).json() == {"detail": "Hier ist nichts."}


def test_messages_of_the_page_and_of_its_filters_are_german(searcher: Searcher) -> None:
    handlers = search.handlers(AppState(searcher, "cpu"))
    with in_language("de"):
        assert answering("search", handlers["search"])({})["message"] == TABLES["de"]["type_words"]
        near = answering("browse", handlers["browse"])({"near": "Paris"})["message"]
        assert near == "„In der Nähe von“ braucht Breite und Länge in Grad, z. B. 48.86,2.35."
        size = answering("browse", handlers["browse"])({"min_megapixels": "many"})["message"]
        assert size == "„Größe“ muss eine Zahl von Megapixeln sein, z. B. 2."
        shape = answering("browse", handlers["browse"])({"orientation": "round"})["message"]
        assert shape == "„Format“ muss landscape, portrait oder square sein."
        about = answering("about", handlers["about"])({})
    assert about["placeholder"] == "Auf Englisch: Was zeigt das Bild?"
    assert about["status"].startswith("12 Bilder · Modell tiny · rechnet auf der CPU in ")


def test_an_indexing_job_speaks_the_language_of_the_user_who_started_it(searcher: Searcher, tmp_path: Path) -> None:
    app_state = AppState(searcher, "cpu")
    with in_language("de"):
        job = app_state.index(str(tmp_path / "none"))
    for thread in threading.enumerate():
        if thread.name == "indexing":
            thread.join(60)
    assert not job.is_running
    assert job.title == f"Indexieren von {tmp_path / 'none'}"
    assert job.error.startswith(f"{job.title} fehlgeschlagen: ")


def test_english_texts_are_those_of_the_library_where_it_has_them() -> None:
    for name, one in FILTERS.items():
        try:
            one.read("?")
        except ValueError as error:
            assert TABLES["en"][f"format_{name}"] == str(error)
    assert TABLES["en"]["english_only"].lower() == f"{HINT}.".lower()
    assert TABLES["en"]["months"].lower().split() == list(MONTHS)


@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_the_report_of_an_index_reads_in_english_as_in_the_terminal(seconds: float) -> None:
    report = IndexReport(1200, 3, 1, [], reused=2, remarks=4, with_text=5, undated=6, seconds=seconds)
    assert _report(report) == str(report)
    assert _report(IndexReport(0, 1, 0, [])) == "0 images embedded, 1 unchanged, 0 removed"


@pytest.fixture
def searcher(tiny_index: Path, tiny_bundle: Path) -> Searcher:
    return Searcher.open(tiny_index, tiny_bundle, "cpu")
