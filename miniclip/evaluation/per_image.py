"""List the captions that a model finds for each image, and the images that it finds for its first caption.

In: an embedded split. Out: lines of text to read.
"""

from collections.abc import Iterator

import numpy as np

from miniclip.data.paths import printable
from miniclip.evaluation.evaluate import SplitEmbeds
from miniclip.evaluation.metrics import first_captions

TOP_K = 5


def per_image_lines(embedded: SplitEmbeds, protocol: str = "karpathy", top_k: int = TOP_K) -> Iterator[str]:
    """Each image with its best captions, then its first caption with the best images. `*` marks correct ones."""
    owner = np.asarray(embedded.table.image_of_caption)
    first = first_captions(owner)
    rows = first if protocol == "paired" else np.arange(len(owner))
    names = [printable(path.name) for path in embedded.table.image_paths]
    captions = [printable(caption) for caption in embedded.table.captions]
    for image, name in enumerate(names):
        yield f"image {name}"
        scores = embedded.text_embeds[rows] @ embedded.image_embeds[image]  # (N_texts,)
        for row in np.argsort(-scores, kind="stable")[:top_k]:
            yield _line(scores[row], owner[rows[row]] == image, captions[rows[row]])
        yield f"caption {captions[first[image]]}"
        scores = embedded.image_embeds @ embedded.text_embeds[first[image]]  # (N_images,)
        for row in np.argsort(-scores, kind="stable")[:top_k]:
            yield _line(scores[row], row == image, names[row])
        yield ""


def _line(score: float, is_correct: bool, name: str) -> str:
    return f"  {'*' if is_correct else ' '} {score:.4f}  {name}"
