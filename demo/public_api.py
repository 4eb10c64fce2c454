"""Functions for other programs: `search_text`, `search_image` and `classify` for `gradio_client`, and tools for MCP.

Their answers never contain a path of this machine.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr
from gradio.events import api

from miniclip.errors import MiniClipError
from miniclip.search.query import DEFAULT_TOP_K, Query

from .app_state import AppState
from .errors import PageError, logger, sentence
from .form import MAX_TEXT, number, text, texts
from .gallery_search import Card
from .i18n import t
from .search_request import MAX_SHOWN
from .uploads import read_base64, read_upload

Result = TypeVar("Result")


def add_public_api(app_state: AppState, with_mcp: bool = False) -> None:
    """Add the endpoints to the page that is being built; with MCP, also the tools that take an image as text.

    MCP tools have no queue: Gradio's MCP server calls the others by a request to the page, which a login refuses. They
    take images in base64, because Gradio would download an image argument from any address.
    """

    def search_text(words: str, top_k: int = DEFAULT_TOP_K) -> list[dict[str, Any]]:
        """Find the images of the open gallery that match a description.

        Args:
            words: What the image should show, in English, such as "a red car".
            top_k: How many images to return, best first.

        Returns:
            Each image's file name, cosine similarity, probability of a match, and preview address; for a moment in a
            video, its time in seconds.
        """
        query = Query(texts=(text({"words": words}, "words"),), distinct=True, names=True)
        return _answer(lambda: _search(app_state, query, top_k))

    def search_image(picture: dict[str, Any] | None) -> dict[str, Any]:
        """For an uploaded image: the captions that describe it best, and the images most similar to it."""

        def search() -> dict[str, Any]:
            image = _image(picture)
            found = app_state.search.captions_of(image)
            captions = [{"caption": hit.caption, "score": hit.score} for hit in found]
            return {"captions": captions, "pictures": _similar(app_state, image, DEFAULT_TOP_K)}

        return _answer(search)

    def classify(picture: dict[str, Any] | None, labels: str) -> dict[str, float]:
        """For an uploaded image and labels separated by commas: each label's probability."""
        return _answer(lambda: _labels(app_state, _image(picture), labels))

    def similar_images(image_base64: str, top_k: int = DEFAULT_TOP_K) -> list[dict[str, Any]]:
        """Find the images of the open gallery that are most similar to an image.

        Args:
            image_base64: The image file, in base64.
            top_k: How many images to return, best first.

        Returns:
            Each image's file name, cosine similarity, and preview address; for a moment in a video, its time in
            seconds.
        """
        return _answer(lambda: _similar(app_state, read_base64(image_base64), top_k))

    def label_image(image_base64: str, labels: str) -> dict[str, float]:
        """Compare an image with labels: the probability of each label, given that one of them is right.

        Args:
            image_base64: The image file, in base64.
            labels: Two labels or more, separated by commas, such as "cat, dog, car".

        Returns:
            Each label's probability; they sum to 1.
        """
        return _answer(lambda: _labels(app_state, read_base64(image_base64), labels))

    api(search_text, api_name="search_text", queue=not with_mcp)
    if with_mcp:
        api(similar_images, api_name="similar_images", queue=False)
        api(label_image, api_name="label_image", queue=False)
    # the hidden components only declare input and output; `miniclip.data.images` decodes the images
    image, label_list = gr.Image(label="picture", visible=False), gr.Textbox(label="labels", visible=False)
    output = gr.JSON(label="found", visible=False)
    button = gr.Button(visible=False)
    options: Any = {"preprocess": False, "api_visibility": "undocumented" if with_mcp else "public"}
    button.click(search_image, image, output, api_name="search_image", **options)
    button.click(classify, [image, label_list], output, api_name="classify", **options)


def _answer(compute: Callable[[], Result]) -> Result:
    try:
        return compute()
    except MiniClipError as error:
        raise gr.Error(sentence(error), print_exception=False) from None
    except Exception:
        logger.exception("internal error in the public API")
        raise gr.Error(t("internal_error"), print_exception=False) from None


def _image(picture: dict[str, Any] | None) -> bytes:
    image = read_upload(picture)
    if image is None:
        raise PageError(t("give_image"))
    return image


def _search(app_state: AppState, query: Query, top_k: int) -> list[dict[str, Any]]:
    shown = int(number({"top_k": top_k}, "top_k", DEFAULT_TOP_K, 1, MAX_SHOWN))
    found = app_state.search.search(query, shown)
    return [_as_json(card) for card in found.cards]


def _similar(app_state: AppState, image: bytes, top_k: int) -> list[dict[str, Any]]:
    return _search(app_state, Query(images=(image,), distinct=True), top_k)


def _labels(app_state: AppState, image: bytes, labels: str) -> dict[str, float]:
    return dict(app_state.search.labels_of(image, texts({"labels": labels}, "labels", ",", 10 * MAX_TEXT)))


def _as_json(card: Card) -> dict[str, Any]:
    return {
        "file": card.name.rsplit("/", 1)[-1],
        "score": card.score,
        "probability": card.probability,
        "preview": card.preview,
    } | ({} if card.second is None else {"second": card.second})
