"""A loss on single words of the captions, because people search with single words and captions are whole sentences.

In: training captions. Out: `Words`, the words and the images that show each of them, and `word_loss` of a batch. In the
contrastive loss, some image of the batch always matches, so the model does not learn which score a word has when no
image matches. A sigmoid loss on each pair of a word and an image, with a fixed temperature and bias, teaches this
(after X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, algorithm 1; several images may match,
and unknown pairs do not count).
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from miniclip.data.caption_table import CaptionTable
from miniclip.inference.calibration_queries import judge_words, vocabulary
from miniclip.inference.judged_queries import RIGHT, UNKNOWN

from .caption_variants import ARTICLES, article

MAX_SHOWN_WORDS, MAX_RANDOM_WORDS = 256, 128  # of a batch: words that its images show, and any words
ARTICLE_SHARE = 0.3  # of the words are drawn as "a dog" instead of "dog"
LOGIT_SCALE, LOGIT_BIAS = 20.0, -10.0


@dataclass(frozen=True)
class Words:
    """The words of all sources. `texts` has all words without an article, then the same words with one."""

    texts: list[str]
    first_row: int  # of `texts[0]` in the texts of the training data
    relation: np.ndarray  # (V, N_images) int8: RIGHT, WRONG or UNKNOWN

    def draw(self, images: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Words for a batch of images (I,): rows of their texts (Q,), and their relation (Q, I) to these images."""
        shown = np.flatnonzero((self.relation[:, images] == RIGHT).any(axis=1))
        shown = generator.permutation(shown)[:MAX_SHOWN_WORDS]
        chosen = np.concatenate([shown, generator.permutation(len(self.relation))[:MAX_RANDOM_WORDS]])
        with_article = generator.random(len(chosen)) < ARTICLE_SHARE
        return self.first_row + chosen + len(self.relation) * with_article, self.relation[np.ix_(chosen, images)]


def words_of(table: CaptionTable, source_of_image: np.ndarray, first_row: int) -> Words:
    """The words of every source's vocabulary, and which images show each of them by their own captions."""
    owners = np.asarray(table.image_of_caption)
    rows = [np.flatnonzero(source_of_image[owners] == source) for source in np.unique(source_of_image)]
    found = {word for captions in rows for word in vocabulary([table.captions[row] for row in captions])}
    words = sorted(word for word in found if word.split()[0] not in ARTICLES)
    relation = judge_words(words, table.captions, owners, len(table.image_paths))
    return Words(words + [f"{article(word)} {word}" for word in words], first_row, relation)


def word_loss(word_embeds: Tensor, image_embeds: Tensor, relation: Tensor) -> Tensor:
    """word_embeds (Q, D), image_embeds (I, D), relation (Q, I) -> the loss of all known pairs, per match."""
    logits = LOGIT_SCALE * word_embeds @ image_embeds.T + LOGIT_BIAS
    is_right = (relation == RIGHT).to(logits.dtype)
    loss = functional.binary_cross_entropy_with_logits(logits, is_right, reduction="none")
    return (loss * (relation != UNKNOWN)).sum() / is_right.sum().clamp_min(1)
