"""What `gradio_client` can call: `search_text`, `search_image` and `classify`. They tell no path of this machine."""

from typing import Any

import gradio as gr
from gradio.events import api

from miniclip.errors import MiniClipError

from .app_state import AppState
from .gallery_search import ResultPage
from .search_request import MAX_SHOWN, MAX_WORDS, SearchRequest
from .uploads import read_uploaded_image, sentence, uploaded_path


def add_public_api(app_state: AppState) -> None:
    """Put the three endpoints into the page that is being built."""

    def search_text(words: str, top_k: int = 10) -> list[dict[str, Any]]:
        """Images for words, best first: file name, score, probability of a match, preview."""
        shown = max(1, min(int(top_k), MAX_SHOWN))
        return _as_json(app_state.search.answer(SearchRequest(words=" ".join(words.split())[:MAX_WORDS], shown=shown)))

    def search_image(uploaded: dict[str, Any] | None) -> dict[str, Any]:
        """For an image: the captions that fit it best, and the images most like it."""
        try:
            image = uploaded_path(uploaded)
            if image is None:
                raise MiniClipError("Give an image.")
            similar = _as_json(app_state.search.answer(SearchRequest(image=image, shown=10)))
            found = app_state.search.captions_of(read_uploaded_image(image))
        except MiniClipError as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        return {"captions": [{"caption": hit.caption, "score": hit.score} for hit in found], "pictures": similar}

    def classify(uploaded: dict[str, Any] | None, labels: str) -> dict[str, float]:
        """For an image and labels with commas between them: each label's probability."""
        try:
            image = uploaded_path(uploaded)
            if image is None:
                raise MiniClipError("Give an image.")
            wanted = [label for part in labels.split(",") if (label := part.strip())]
            return dict(app_state.search.labels_of(read_uploaded_image(image), wanted))
        except MiniClipError as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    api(search_text, api_name="search_text")
    # components only describe input and output; they decode nothing, since `miniclip.data.images` decodes all images
    image, labels = gr.Image(label="picture", visible=False), gr.Textbox(label="labels", visible=False)
    output = gr.JSON(label="found", visible=False)
    button = gr.Button(visible=False)
    button.click(search_image, image, output, api_name="search_image", preprocess=False)
    button.click(classify, [image, labels], output, api_name="classify", preprocess=False)


def _as_json(answer: ResultPage) -> list[dict[str, Any]]:
    if answer.message:
        raise gr.Error(answer.message, print_exception=False)
    return [
        {
            "file": card.name.rsplit("/", 1)[-1],
            "score": card.score,
            "probability": card.probability,
            "preview": card.preview,
        }
        for card in answer.cards
    ]
