"""Recall@K on arrays, from images to texts and back, for the protocols `karpathy` and `paired`.

In: unit embeddings (or a similarity matrix) and the image of each caption. Out: a dictionary with
`image_to_text_recall@K`, `text_to_image_recall@K` in [0, 1] and `mean_recall`, their mean.
Protocol `karpathy` uses all captions; an image is a hit if any of its captions is in the top K (Karpathy & Fei-Fei,
CVPR 2015, section 4.1). Protocol `paired` uses only the first caption of each image.
"""

import numpy as np

KS = (1, 5, 10)
PROTOCOLS = ("karpathy", "paired")


def ranks(similarity: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rank of the score `similarity[i, target[i]]` in each row i; 0 is the best.

    similarity (N, M) float, target (N,) int64 -> (N,) int64. Equal scores rank by column, as in exact top-k search, so
    that a model that gives every pair the same score does not look perfect.

    >>> ranks(np.array([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]]), np.array([2, 1]))
    array([1, 1])
    """
    rows = np.arange(len(similarity))
    own = similarity[rows, target][:, None]
    earlier = np.arange(similarity.shape[1])[None, :] < target[:, None]
    return np.asarray(((similarity > own) | ((similarity == own) & earlier)).sum(axis=1), dtype=np.int64)


def retrieval_ranks(
    text_embeds: np.ndarray, image_embeds: np.ndarray, image_of_caption: np.ndarray, chunk: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """The rank of the image of each text (N_texts,), and of the best of each image's own captions (N_images,).

    text_embeds (N_texts, D), image_embeds (N_images, D), image_of_caption (N_texts,): row of each caption's image.
    Memory holds `chunk` rows of scores at a time. Every image needs at least one caption.
    """
    text_ranks = np.concatenate(
        [
            ranks(text_embeds[start : start + chunk] @ image_embeds.T, image_of_caption[start : start + chunk])
            for start in range(0, len(text_embeds), chunk)
        ]
    )
    image_ranks = np.empty(len(image_embeds), dtype=np.int64)
    for start in range(0, len(image_embeds), chunk):
        similarity = image_embeds[start : start + chunk] @ text_embeds.T  # (chunk, N_texts)
        image_rows = np.arange(start, start + len(similarity))
        own = image_of_caption[None, :] == image_rows[:, None]
        best = np.where(own, similarity, -np.inf).argmax(axis=1)
        image_ranks[start : start + chunk] = ranks(similarity, best)
    return text_ranks, image_ranks


def recalls(text_ranks: np.ndarray, image_ranks: np.ndarray) -> dict[str, float]:
    """The six recalls of these ranks, and their mean.

    >>> recalls(np.array([0, 7]), np.array([0, 0]))["text_to_image_recall@1"]
    0.5
    """
    result = {f"image_to_text_recall@{k}": float((image_ranks < k).mean()) for k in KS}
    result |= {f"text_to_image_recall@{k}": float((text_ranks < k).mean()) for k in KS}
    result["mean_recall"] = sum(result.values()) / len(result)
    return result


def first_captions(image_of_caption: np.ndarray) -> np.ndarray:
    """Rows of the captions that protocol `paired` keeps: the first of each image."""
    return np.unique(image_of_caption, return_index=True)[1]


def retrieval_recalls(
    text_embeds: np.ndarray, image_embeds: np.ndarray, image_of_caption: np.ndarray, protocol: str = "karpathy"
) -> dict[str, float]:
    """The recalls of these embeddings by one protocol; shapes as in `retrieval_ranks`."""
    if protocol == "paired":
        first = first_captions(image_of_caption)
        text_embeds, image_of_caption = text_embeds[first], image_of_caption[first]
    return recalls(*retrieval_ranks(text_embeds, image_embeds, image_of_caption))
