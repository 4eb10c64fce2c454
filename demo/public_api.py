"""What programs can call: `search_text`, `search_image` and `classify`, by `gradio_client` or as MCP tools.

The answers contain no path of this machine.
"""

from typing import Any

import gradio as gr
from gradio.events import api

from miniclip.errors import MiniClipError
from miniclip.search.query import Query

from .app_state import AppState
from .cards import Card
from .errors import INTERNAL_ERROR, PageError, logger, sentence
from .form import MAX_TEXT, text, texts
from .search_request import MAX_SHOWN
from .uploads import read_upload

DEFAULT_TOP_K = Query.top_k  # the library's own default


def add_public_api(app_state: AppState, with_mcp: bool = False) -> None:
    """Add the three endpoints to the page that is being built.

    Gradio's MCP server calls endpoints without a queue directly, and the others through a request to the page, which
    a login would refuse: with MCP they have no queue.
    """

    def search_text(words: str, top_k: int = DEFAULT_TOP_K) -> list[dict[str, Any]]:
        """Find the images of the open gallery that match a description.

        Args:
            words: What the image should show, in English, such as "a red car".
            top_k: How many images to return, best first.

        Returns:
            Each image's file name, cosine similarity, probability of a match, and preview address.
        """
        return _answer(lambda: _search(app_state, Query(texts=_words(words), distinct=True), top_k))

    def search_image(picture: dict[str, Any] | None) -> dict[str, Any]:
        """Find the images of the open gallery that look like an image, and the captions that describe it best.

        Args:
            picture: The image.

        Returns:
            "captions" with their scores, and "pictures" as `search_text` returns them.
        """

        def search() -> dict[str, Any]:
            image = _image(picture)
            similar = _search(app_state, Query(images=(image,), distinct=True), DEFAULT_TOP_K)
            found = app_state.search.captions_of(image)
            return {"captions": [{"caption": hit.caption, "score": hit.score} for hit in found], "pictures": similar}

        return _answer(search)

    def classify(picture: dict[str, Any] | None, labels: str) -> dict[str, float]:
        """Compare an image with labels.

        Args:
            picture: The image.
            labels: Two labels or more, with commas between them, such as "cat, dog, car".

        Returns:
            Each label's probability; they sum to 1.
        """
        wanted = texts({"labels": labels}, "labels", ",", 10 * MAX_TEXT)
        return _answer(lambda: dict(app_state.search.labels_of(_image(picture), wanted)))

    has_queue = not with_mcp
    api(search_text, api_name="search_text", queue=has_queue)
    # the components only describe input and output: `miniclip.data.images` decodes all images
    image, label_list = gr.Image(label="picture", visible=False), gr.Textbox(label="labels", visible=False)
    output = gr.JSON(label="found", visible=False)
    button = gr.Button(visible=False)
    options = {"preprocess": False, "queue": has_queue}
    button.click(search_image, image, output, api_name="search_image", **options)
    button.click(classify, [image, label_list], output, api_name="classify", **options)


def _answer(compute: Any) -> Any:
    try:
        return compute()
    except MiniClipError as error:
        raise gr.Error(sentence(error), print_exception=False) from None
    except Exception:
        logger.exception("internal error in the public API")
        raise gr.Error(INTERNAL_ERROR, print_exception=False) from None


def _words(words: str) -> tuple[str, ...]:
    return (text({"words": words}, "words"),)


def _image(picture: dict[str, Any] | None) -> bytes:
    image = read_upload(picture)
    if image is None:
        raise PageError("Give an image.")
    return image


def _search(app_state: AppState, query: Query, top_k: int) -> list[dict[str, Any]]:
    found = app_state.search.search(query, max(1, min(int(top_k), MAX_SHOWN)))
    return [_as_json(card) for card in found.cards]


def _as_json(card: Card) -> dict[str, Any]:
    return {
        "file": card.name.rsplit("/", 1)[-1],
        "score": card.score,
        "probability": card.probability,
        "preview": card.preview,
    }
