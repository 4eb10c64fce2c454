"""Texts as tokens, stored without padding. A batch is padded to its longest text."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from miniclip.inference.tokenizer import Tokenizer


class Tokens:
    """N tokenised texts. Tokens `offsets[i]` to `offsets[i + 1]` belong to text i, which has `lengths[i]` tokens.

    With an `exact_length`, for a tower that attends to padding, the padding up to that length counts as tokens.
    """

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], exact_length: int | None = None) -> None:
        self.pad_id = tokenizer.pad_id
        rows = [own + [self.pad_id] * ((exact_length or 0) - len(own)) for own in tokenizer.ids(texts)]
        self.lengths = np.asarray([len(row) for row in rows], dtype=np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        self._ids = np.asarray([token for row in rows for token in row], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, rows: np.ndarray, least: int = 1) -> tuple[Tensor, Tensor]:
        """`input_ids, attention_mask` (B, L) of some texts; L is the length of the longest, but at least `least`."""
        longest = int(self.lengths[rows].max(initial=least))
        input_ids = np.full((len(rows), longest), self.pad_id, dtype=np.int64)
        attention_mask = np.zeros_like(input_ids)
        for place, row in enumerate(rows):
            length = self.lengths[row]
            input_ids[place, :length] = self._ids[self.offsets[row] : self.offsets[row + 1]]
            attention_mask[place, :length] = 1
        return torch.from_numpy(input_ids), torch.from_numpy(attention_mask)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """(B, L): the index of each token of some texts among all tokens. Entries after a text's end are arbitrary."""
        lengths = self.lengths[rows]
        distances = np.arange(int(lengths.max(initial=1)))
        places: np.ndarray = np.minimum(self.offsets[rows][:, None] + distances, self.offsets[-1] - 1)
        return places

    def by_length(self) -> np.ndarray:
        """All rows, the shortest first."""
        return np.argsort(self.lengths, kind="stable")

    def digest(self) -> str:
        """SHA-256 over the tokens of all texts: it changes with the tokenizer and with the length limit."""
        return hashlib.sha256(self.lengths.tobytes() + self._ids.tobytes()).hexdigest()
