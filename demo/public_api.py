"""What `gradio_client` can call: `search_text`, `search_image` and `classify`. They tell no path of this machine."""

from typing import Any

import gradio as gr
from gradio.events import api

from miniclip.errors import MiniClipError

from .app_state import Desk
from .gallery_search import Answer
from .search_request import MAX_WORDS, MOST_SHOWN, Question
from .uploads import read_picture_file, sentence, uploaded_path


def add_public_api(desk: Desk) -> None:
    """Put the three endpoints into the page that is being built."""

    def search_text(words: str, top_k: int = 10) -> list[dict[str, Any]]:
        """Pictures for words, best first: file name, score, probability of a match, preview."""
        shown = max(1, min(int(top_k), MOST_SHOWN))
        return _as_json(desk.search.answer(Question(words=" ".join(words.split())[:MAX_WORDS], shown=shown)))

    def search_image(uploaded: dict[str, Any] | None) -> dict[str, Any]:
        """For a picture: the captions that fit it best, and the pictures most like it."""
        try:
            picture = uploaded_path(uploaded)
            if picture is None:
                raise MiniClipError("Give a picture.")
            similar = _as_json(desk.search.answer(Question(picture=picture, shown=10)))
            found = desk.search.captions_of(read_picture_file(picture))
        except MiniClipError as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        return {"captions": [{"caption": hit.caption, "score": hit.score} for hit in found], "pictures": similar}

    def classify(uploaded: dict[str, Any] | None, labels: str) -> dict[str, float]:
        """For a picture and labels with commas between them: each label's probability."""
        try:
            picture = uploaded_path(uploaded)
            if picture is None:
                raise MiniClipError("Give a picture.")
            wanted = [label for part in labels.split(",") if (label := part.strip())]
            return dict(desk.search.labels_of(read_picture_file(picture), wanted))
        except MiniClipError as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    api(search_text, api_name="search_text")
    # components only describe input and output; they decode nothing, since `miniclip.data.images` decodes all images
    picture, labels = gr.Image(label="picture", visible=False), gr.Textbox(label="labels", visible=False)
    output = gr.JSON(label="found", visible=False)
    button = gr.Button(visible=False)
    button.click(search_image, picture, output, api_name="search_image", preprocess=False)
    button.click(classify, [picture, labels], output, api_name="classify", preprocess=False)


def _as_json(answer: Answer) -> list[dict[str, Any]]:
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
