"""A hint for queries in a language that the open model was probably not trained on.

In: the words of a query and the tokenizer. Out: one line, or None; and whether the model knows English only.
"""

import unicodedata
from collections.abc import Iterable

from miniclip.inference.tokenizer import Tokenizer

# English vocabularies have 30,000 (BERT) to 50,000 tokens (RoBERTa, CLIP); multilingual ones have 119,547 (BERT) to
# 256,000 (SigLIP2)
MIN_MULTILINGUAL_TOKENS = 100_000
HINT = "this model knows English only; search in English, or with a multilingual bundle"


def language_hint(texts: Iterable[str], tokenizer: Tokenizer) -> str | None:
    """The hint, if at least half of the letters are not Latin and the vocabulary is that of an English model."""
    letters = [char for text in texts for char in text if char.isalpha()]
    foreign = sum(not unicodedata.name(char, "").startswith("LATIN") for char in letters)
    if not letters or 2 * foreign < len(letters) or not knows_only_english(tokenizer):
        return None
    return HINT


def knows_only_english(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary is that of an English model."""
    return tokenizer.highest_id < MIN_MULTILINGUAL_TOKENS
