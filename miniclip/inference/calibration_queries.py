"""Turn captions into queries as users type them, with the correct images for each.

In: captions of held-out images. Out: whole captions, and single words that images with several captions agree on.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from miniclip.inference.encoders import Encoders
from miniclip.inference.judged_queries import RIGHT, UNKNOWN, WRONG, JudgedQueries, Words

MAX_CAPTIONS, MAX_WORDS = 1000, 300  # of one source
MIN_IMAGES = 3  # that must agree on a word
MAX_NAME_WORDS, MAX_VOCABULARY = 3, 700
MANY_CAPTIONS = 4  # from this number, a single caption of an image proves little
MAX_SHARE = 0.4  # of the images: "the" and "in" are in more
WORD = re.compile(r"[^\W\d_]{3,}")
FUNCTION_WORDS = {
    "and", "the", "with", "his", "her", "its", "their", "from", "into", "onto", "while", "for", "are", "was", "has",
    "have", "that", "this", "there", "over", "off", "out", "down", "along", "through", "another", "other", "front",
    "each", "who", "some", "one", "two", "three", "four", "very", "near", "next", "behind", "around",
}  # fmt: skip


def judged_queries(captions: Sequence[str], image_of_caption: np.ndarray, images: int) -> tuple[list[str], np.ndarray]:
    """Captions (N_texts,) of `images` images -> Q queries and their relation (Q, images) to every image.

    A caption is right for every image that has it. A word is right for an image if at least half of its captions, and
    at least two of them, contain it. It is unknown if fewer do, or if a single caption may have left it out.
    """
    owners: dict[str, set[int]] = defaultdict(set)
    for caption, image in zip(captions, image_of_caption.tolist(), strict=True):
        owners[caption].add(image)
    texts = list(owners)
    rows = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), MAX_CAPTIONS)).astype(int))
    queries = [texts[row] for row in rows]
    relation = np.full((len(queries), images), WRONG, dtype=np.int8)
    for row, text in enumerate(queries):
        relation[row, list(owners[text])] = RIGHT

    written = np.bincount(image_of_caption, minlength=images)
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for caption, image in zip(captions, image_of_caption.tolist(), strict=True):
        for word in set(WORD.findall(caption.lower())) - FUNCTION_WORDS:
            counts[word][image] += 1
    words: dict[str, np.ndarray] = {}
    for word, found in sorted(counts.items()):
        own = np.where(written >= 2, WRONG, UNKNOWN).astype(np.int8)
        for image, number in found.items():
            own[image] = RIGHT if number >= max(2, written[image] / 2) else UNKNOWN
        if (own == RIGHT).sum() >= MIN_IMAGES and len(found) <= MAX_SHARE * images:
            words[word] = own
    chosen = sorted(words, key=lambda word: (-(words[word] == RIGHT).sum(), word))[:MAX_WORDS]
    return queries + chosen, np.concatenate([relation, *(words[word][None] for word in chosen)])


def vocabulary(captions: Sequence[str]) -> list[str]:
    """Short queries from the captions of a source: its names, and its frequent words."""
    names = {caption.lower() for caption in captions if len(caption.split()) <= MAX_NAME_WORDS}
    counts = Counter(word for caption in captions for word in set(WORD.findall(caption.lower())) - FUNCTION_WORDS)
    return sorted(names | {word for word, number in counts.most_common(MAX_VOCABULARY) if number >= MIN_IMAGES})


def judge_words(words: Sequence[str], captions: Sequence[str], image_of_caption: np.ndarray, images: int) -> np.ndarray:
    """(Q, images) int8: RIGHT if the captions of an image contain the word, WRONG if none does, otherwise UNKNOWN.

    If there are many captions, two must contain it. Plurals and -ing forms count as the word.
    """
    written = np.bincount(image_of_caption, minlength=images)
    need = np.where(written >= MANY_CAPTIONS, 2, 1)
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for caption, image in zip(captions, image_of_caption.tolist(), strict=True):
        for part in _stems(caption):
            found[part][image] += 1
    relation = np.full((len(words), images), WRONG, dtype=np.int8)
    for row, word in enumerate(words):
        counts = [found.get(part, Counter()) for part in _stems(word)]
        if not counts:
            relation[row] = UNKNOWN
            continue
        for image in set.intersection(*(set(own) for own in counts)):
            relation[row, image] = RIGHT if all(own[image] >= need[image] for own in counts) else UNKNOWN
    return relation


def judge(
    captions: Sequence[str],
    image_of_caption: np.ndarray,
    image_embeds: np.ndarray,
    encoders: Encoders,
    words: Sequence[str] = (),
) -> JudgedQueries:
    """The embedded queries of one source. Many of the short queries `words` are right for none of its images."""
    queries, relation = judged_queries(captions, image_of_caption, len(image_embeds))
    judged = JudgedQueries(encoders.encode_texts(queries), image_embeds, relation)
    if not words:
        return judged
    relation = judge_words(words, captions, image_of_caption, len(image_embeds))
    return replace(judged, words=Words(encoders.encode_texts(list(words)), relation))


def _stems(text: str) -> set[str]:
    """Words without English endings."""
    return {re.sub(r"(es|s|ing)$", "", word) for word in WORD.findall(text.lower())}
