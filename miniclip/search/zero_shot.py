"""Find the label that fits an image best, without training (CLIP, section 3.1.2): labels become short texts.

In: images, labels, encoders. Out: a probability for every image and label, and a reason for each unreadable image.
"""

from collections.abc import Callable, Sequence

import numpy as np

from miniclip.data.images import ImageSource
from miniclip.data.prefetch import prefetch
from miniclip.data.storage import read_uri
from miniclip.errors import InvalidArgument, MiniClipError
from miniclip.inference.encoders import Encoders

TEMPLATES = ("{}", "a photo of a {}", "an image of {}")  # averaged, so that no single wording decides
BLOCK = 32  # objects in memory at a time; as many are being fetched


def label_embeds(labels: Sequence[str], encoders: Encoders, templates: Sequence[str] = TEMPLATES) -> np.ndarray:
    """L labels -> (L, D) unit rows, each the mean over the templates; `{}` in a template is the label's place.

    Errors: `MiniClipError` for fewer than two labels, a repeated label, or a template without `{}`.
    """
    labels = [label.strip() for label in labels]
    if len(set(labels)) < 2 or len(set(labels)) < len(labels) or not all(labels):
        raise InvalidArgument("labels", "needs two or more different labels, such as cat, dog and red car")
    if not templates or not all("{}" in template for template in templates):
        raise MiniClipError("a prompt template needs {} where the label goes, as in: a photo of a {}")
    texts = [template.replace("{}", label) for label in labels for template in templates]
    embeds = encoders.encode_texts(texts).reshape(len(labels), len(templates), -1).mean(axis=1)
    return np.asarray(embeds / np.linalg.norm(embeds, axis=1, keepdims=True))


def classify(
    images: Sequence[ImageSource],
    labels: Sequence[str],
    encoders: Encoders,
    on_error: Callable[[int, str], None] | None = None,
    templates: Sequence[str] = TEMPLATES,
    progress: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Images and L labels -> rows (M,) and probabilities (M, L) that sum to 1 over the labels.

    The probabilities compare the labels with each other; they do not say whether any of them is true.
    Images that cannot be read go to `on_error(row, reason)`, or raise. `progress(n)` is called with the number done
    since its last call.
    """
    return _compare(images, label_embeds(labels, encoders, templates), encoders, on_error, progress)


def _compare(
    images: Sequence[ImageSource],
    text_embeds: np.ndarray,
    encoders: Encoders,
    on_error: Callable[[int, str], None] | None,
    progress: Callable[[int], object] | None,
) -> tuple[np.ndarray, np.ndarray]:
    rows, image_embeds = encoders.encode_images(images, on_error, progress=progress)
    logits = np.exp(encoders.logit_scale) * image_embeds @ text_embeds.T  # (M, L)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return rows, odds / odds.sum(axis=1, keepdims=True)


def classify_objects(
    uris: Sequence[str],
    labels: Sequence[str],
    encoders: Encoders,
    on_error: Callable[[int, str], None],
    progress: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`classify` for images in object storage, fetched a few at a time."""
    text_embeds = label_embeds(labels, encoders)  # refuse wrong labels before anything is downloaded
    rows: list[int] = []
    parts = [np.empty((0, len(labels)))]
    block: dict[int, bytes] = {}

    def classify_block() -> None:
        own = list(block)
        good, part = _compare(
            list(block.values()), text_embeds, encoders, lambda place, reason: on_error(own[place], reason), progress
        )
        rows.extend(own[place] for place in good)
        parts.append(part)
        block.clear()

    for row, content in prefetch(uris, read_uri, ahead=BLOCK):
        if isinstance(content, MiniClipError):
            on_error(row, str(content))
            continue
        block[row] = content
        if len(block) == BLOCK:
            classify_block()
    classify_block()
    return np.asarray(rows, dtype=np.int64), np.concatenate(parts)
