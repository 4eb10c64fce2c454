"""Variants of a caption that keep its meaning; training draws one of them each time.

In: a caption. Out: its variants. A bare name ("granny smith apple") becomes sentences such as "an image of a granny
smith apple" (templates after A. Radford et al., "Learning Transferable Visual Models From Natural Language
Supervision", ICML 2021, section 3.1.4). A sentence becomes shorter, like a search query: without articles, or without
one or two words (word dropout as in J. Wei and K. Zou, "EDA", EMNLP 2019).
"""

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniclip.models.config import DataConfig

MAX_NAME_WORDS = 3
DROPPED_SHARE = 0.15  # fraction of a sentence's words
NAME_SHARE = 0.5  # probability that a name is drawn as a sentence
TEMPLATES = (
    "{article} {name}",
    "an image of {name}",
    "a photo of {article} {name}",
    "an image of {article} {name}",
    "this is {article} {name}",
)
MIN_DROPPED_WORDS = 6  # in shorter sentences, every word may matter
ARTICLES = frozenset(("a", "an", "the"))


@dataclass(frozen=True)
class Variants:
    """Rows of the variants, which follow the captions.

    Rows `first[i]` to `first[i + 1]` are the variants of text i. One of them replaces it with probability `share[i]`.
    """

    texts: list[str]
    first: np.ndarray  # (N_texts + 1,)
    share: np.ndarray  # (N_texts,)

    def draw(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """For each text, its own row or the row of one of its variants."""
        if not self.texts:
            return rows
        chance, place = generator.random((2, len(rows)))
        count = self.first[rows + 1] - self.first[rows]
        variant = self.first[rows] + (place * count).astype(np.int64)
        return np.where((count > 0) & (chance < self.share[rows]), variant, rows)


def make_variants(captions: Sequence[str], settings: DataConfig) -> Variants:
    """The variants for `--data.name_templates` and `--data.caption_augment`; their rows follow the captions."""
    texts: list[str] = []
    first, share = [len(captions)], []
    for caption in captions:
        if is_name(caption):
            own, probability = (name_sentences(caption) if settings.name_templates else []), NAME_SHARE
        else:
            own, probability = shortened(caption, settings.seed), settings.caption_augment
        own = own if probability else []
        texts += own
        first.append(first[-1] + len(own))
        share.append(probability)
    return Variants(texts, np.asarray(first, dtype=np.int64), np.asarray(share))


def is_name(caption: str) -> bool:
    """Whether a caption is a bare name: at most three words, without a leading article or a final full stop."""
    words = caption.split()
    return len(words) <= MAX_NAME_WORDS and words[0].lower() not in ARTICLES and not caption.endswith(".")


def name_sentences(name: str) -> list[str]:
    """The name in each template."""
    return [template.format(name=name, article=article(name)) for template in TEMPLATES]


def shortened(caption: str, seed: int = 0) -> list[str]:
    """A sentence without articles, and two versions with some words missing; duplicates are dropped."""
    words = re.sub(r"[.,;!?]+(?=\s|$)", "", caption).split()
    generator = random.Random(f"{seed}-{zlib.crc32(caption.encode())}")
    found = [" ".join(word for word in words if word.lower() not in ARTICLES)]
    for _ in range(2 if len(words) >= MIN_DROPPED_WORDS else 0):
        kept = [word for word in words if generator.random() >= DROPPED_SHARE]
        found.append(" ".join(kept or words))
    return [text for text in dict.fromkeys(found) if text and text != caption]


def article(noun: str) -> str:
    """The indefinite article, chosen by the noun's first letter."""
    return "an" if noun[:1].lower() in "aeiou" else "a"
