"""The search page. In: a `PictureSearch`. Out: Gradio `Blocks`, and the options to launch them with.

Everything that runs is onnxruntime behind `demo.search`; importing this loads neither torch nor transformers.
    python -m demo --images DIR --bundle B
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported: no request may leave the machine

from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api

from demo import markup
from demo.search import MAX_WORDS, PAGE_SIZE, Answer, PictureSearch, Question
from miniclip.errors import MiniClipError

HERE = Path(__file__).parent
SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
SYSTEM_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
MAX_UPLOAD = "20mb"
TITLE = "MiniCLIP"


class Results:
    """A gallery with its "show more": one below the words, one below the picture."""

    def __init__(self, search: PictureSearch, question: Question | None = None, name: str = "") -> None:
        self.search = search
        answer = search.answer(question) if question else Answer()
        self.question = gr.State(question)
        self.shown = gr.State(PAGE_SIZE)
        html = markup.cards(answer) if question else ""
        self.gallery = gr.HTML(html, js_on_load=_script("results.js"), elem_id=f"{name}-results", padding=False)
        with gr.Row(elem_classes="more"):
            self.more = gr.Button("Show more", visible=answer.has_more, elem_id=f"{name}-more")
        self.outputs = [self.gallery, self.more, self.question, self.shown]
        _on(self.more.click, self.show_more, [self.question, self.shown], self.outputs)

    def ask(self, question: Question, shown: int = PAGE_SIZE) -> tuple[Any, ...]:
        return self.show(self.search.answer(question, shown), question, shown)

    def show(self, answer: Answer, question: Question, shown: int = PAGE_SIZE) -> tuple[Any, ...]:
        """Values for `outputs`."""
        return markup.cards(answer), gr.update(visible=answer.has_more), question, shown

    def show_more(self, question: Question | None, shown: int) -> tuple[Any, ...]:
        return self.ask(question or Question(), shown + PAGE_SIZE)


def build_page(search: PictureSearch) -> gr.Blocks:
    """The page on one index. Its public API: `search_text` and `search_image`."""
    page = gr.Blocks(title=TITLE, analytics_enabled=False)
    with page:
        gr.HTML(f"<h1>{TITLE}</h1><p>Search {search.count} pictures by what they show.</p>", elem_id="title")
        with gr.Tabs(selected="words", elem_id="tabs") as tabs:
            with gr.Tab("Words", id="words"):
                words_results, words = _words_tab(search)
            with gr.Tab("Picture", id="picture"):
                picture_results = _picture_tab(search)
        detail = gr.HTML("", html_template="", js_on_load=_script("detail.js"), elem_id="detail")
        gr.HTML(_footer(search), elem_id="status", padding=False)

        def open_detail(event: gr.EventData, find_captions: bool = False) -> str:
            try:
                row, score = event._data["row"], float(event._data["score"])
                return markup.detail(search.detail(row, score, find_captions))
            except (MiniClipError, KeyError, TypeError, ValueError):  # only a hand-made request gets here
                return ""

        def find_captions(event: gr.EventData) -> str:
            return open_detail(event, find_captions=True)

        def more_like(event: gr.EventData) -> tuple[Any, ...]:
            row = event._data.get("row") if isinstance(event._data, dict) else None
            return gr.update(selected="words"), "", *words_results.ask(Question(row=row))

        for results in (words_results, picture_results):
            _on(results.gallery.select, open_detail, None, detail)
        _on(detail.find_captions, find_captions, None, detail)
        _on(detail.more_like, more_like, None, [tabs, words, *words_results.outputs])
        _add_api(search)
    return page


def _words_tab(search: PictureSearch) -> tuple[Results, gr.Textbox]:
    with gr.Row(elem_id="search-bar"):
        words = gr.Textbox(
            search.examples[0],
            placeholder="What should the picture show?",
            label="What should the picture show?",
            show_label=False,
            container=False,
            max_lines=1,
            max_length=MAX_WORDS,
            elem_id="words",
            scale=1,
        )
        button = gr.Button("Search", variant="primary", elem_id="search", scale=0, min_width=110)
    with gr.Row(elem_id="examples"):
        chips = [
            (text, gr.Button(text, size="sm", elem_classes="chip", scale=0, min_width=0)) for text in search.examples
        ]
    results = Results(search, Question(words=search.examples[0]), "words")

    def ask(text: str | None) -> tuple[Any, ...]:
        return results.ask(Question(words=text or ""))

    for event in (words.submit, button.click):
        _on(event, ask, words, results.outputs)
    for text, chip in chips:
        _on(chip.click, partial(_ask_example, results, text), None, [words, *results.outputs])
    return results, words


def _ask_example(results: Results, text: str) -> tuple[Any, ...]:
    return text, *results.ask(Question(words=text))


def _picture_tab(search: PictureSearch) -> Results:
    with gr.Row(elem_id="picture-row"):
        upload = gr.Image(
            sources=["upload", "clipboard"],
            label="Drop, paste or choose a picture",
            height=320,
            buttons=[],
            elem_id="upload",
            scale=1,
            min_width=280,
        )
        captions = gr.HTML(markup.message(_invitation(search)), elem_id="captions", padding=False, min_width=280)
    results = Results(search, name="picture")

    def ask(uploaded: dict[str, Any] | None) -> tuple[Any, ...]:
        """Values for the upload, the captions and the results."""
        if (picture := _uploaded_path(uploaded)) is None:
            return None, markup.message(_invitation(search)), *_nothing()
        answer = search.answer(Question(picture=picture))
        if answer.message:  # unreadable: said in the place one looks at, and the upload is emptied for another try
            return None, markup.message(answer.message), *_nothing()
        found, text = search.captions_of_upload(picture)
        return gr.skip(), markup.found_captions(found, text), *results.show(answer, Question(picture=picture))

    # not `change`, which emptying the upload would fire again
    for event in (upload.upload, upload.clear):
        _on(event, ask, upload, [upload, captions, *results.outputs], preprocess=False)
    return results


def _uploaded_path(uploaded: dict[str, Any] | None) -> Path | None:
    """The uploaded file itself, which Gradio has checked to lie in its upload folder.

    `preprocess=False` hands it on undecoded: Gradio's decoder answers a text file named .jpg with a traceback;
    `miniclip.images` decodes it the way it decodes every other picture, and says what is wrong in a sentence.
    """
    path = uploaded.get("path") if uploaded else None
    return Path(path) if path else None


def _nothing() -> tuple[Any, ...]:
    """Values for the outputs of empty results."""
    return "", gr.update(visible=False), None, PAGE_SIZE


def _invitation(search: PictureSearch) -> str:
    wanted = "the captions that fit it best and " if search.searcher.has_captions else ""
    return f"Give a picture to see {wanted}the pictures most like it."


def _footer(search: PictureSearch) -> str:
    source = ""
    if search.is_openmoji:
        source = '<p id="attribution">Pictures: OpenMoji, CC BY-SA 4.0</p>'
    return f'<p id="status-line">{escape(search.status)}</p>{source}'


def _add_api(search: PictureSearch) -> None:
    """What `gradio_client` can call, apart from the page's own events, which return HTML and stay private."""

    def search_text(words: str, top_k: int = 10) -> list[dict[str, Any]]:
        """Pictures for words: file name, score, preview, best first."""
        return _as_json(search.answer(Question(words=words), _limit(top_k)))

    def search_image(uploaded: dict[str, Any] | None) -> dict[str, Any]:
        """For a picture: the captions that fit it best, and the pictures most like it."""
        if (picture := _uploaded_path(uploaded)) is None:
            raise gr.Error("Give a picture.", print_exception=False)
        similar = _as_json(search.answer(Question(picture=picture), 10))
        found, _ = search.captions_of_upload(picture)
        return {"captions": [{"caption": hit.caption, "score": hit.score} for hit in found], "pictures": similar}

    api(search_text, api_name="search_text")
    picture, output = gr.Image(label="picture", visible=False), gr.JSON(label="found", visible=False)
    gr.Button(visible=False).click(search_image, picture, output, api_name="search_image", preprocess=False)


def _as_json(answer: Answer) -> list[dict[str, Any]]:
    if answer.message:
        raise gr.Error(answer.message, print_exception=False)
    return [{"file": card.file_name, "score": card.score, "preview": card.preview} for card in answer.cards]


def _limit(top_k: int) -> int:
    return max(1, min(int(top_k), 1000))


def _on(event: Any, function: Any, inputs: Any, outputs: Any, preprocess: bool = True) -> None:
    """Wire one of the page's own events: hidden from the API, answered at once and without Gradio's spinner."""
    event(
        function,
        inputs,
        outputs,
        api_visibility="private",
        queue=False,
        show_progress="hidden",
        preprocess=preprocess,
    )


def _script(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Colours and fonts; system fonts only, since any other would be fetched."""
    base = gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", radius_size="lg", font=SYSTEM_FONTS, font_mono=SYSTEM_MONO
    )
    # Gradio's own greys and teals miss a contrast of 4.5 to 1 on white
    return base.set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_secondary_text_color="*neutral_800",
        input_background_fill="white",
    )


def launch_options(search: PictureSearch) -> dict[str, Any]:
    """Options of `Blocks.launch` that belong to the page; port, login and browser are the command's."""
    return {
        "theme": theme(),
        "css_paths": [HERE / "style.css"],
        "footer_links": [],
        "max_file_size": MAX_UPLOAD,
        "app_kwargs": {"routes": [search.previews.route()]},
        "ssr_mode": False,
        "quiet": True,
    }
