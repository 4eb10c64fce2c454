"""Texts to `input_ids` and `attention_mask`, through the `tokenizers` library alone (no torch, no transformers).

In: a folder with `tokenizer.json` (and `tokenizer_config.json`). Out: int64 arrays (B, L), padded to the longest text
of the batch, so that a short query does not cost 64 tokens. For a model that attends to padding, all rows have one
length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as RustTokenizer

from miniclip.errors import MiniClipError
from miniclip.inference.layouts import TextRules, read_settings

PAD_TOKENS = ("<pad>", "[PAD]", "<|endoftext|>")  # of RoBERTa, BERT and CLIP, if the settings name none
CLIP_END = "<|endoftext|>"


class Tokenizer:
    """The tokenizer of a text tower, with its padding token and maximum length."""

    def __init__(
        self,
        rust: RustTokenizer,
        pad_token: str,
        max_tokens: int,
        rules: TextRules = TextRules(),  # noqa: B008
    ) -> None:
        pad_id = rust.token_to_id(_without_surrogates(pad_token))
        if pad_id is None:
            raise MiniClipError(f"tokenizer.json has no token {pad_token!r}, which tokenizer_config.json pads with")
        rust.enable_truncation(max_tokens)
        rust.no_padding()
        self._rust = rust
        self.pad_id = int(pad_id)
        self.max_tokens = max_tokens
        self.exact_length = rules.exact_length
        self._clean = rules.clean

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Open the tokenizer of a bundle of ours, a run or a Hugging Face folder."""
        return cls.from_files(folder / "tokenizer.json", folder / "tokenizer_config.json", TextRules())

    @classmethod
    def from_files(cls, tokenizer: Path, tokenizer_config: Path, rules: TextRules) -> "Tokenizer":
        """Open a `tokenizer.json` with its settings; `rules` are those of its text model."""
        try:
            rust = RustTokenizer.from_str(tokenizer.read_text(encoding="utf-8"))
        except OSError as error:
            raise MiniClipError(f"cannot read {tokenizer}: {error.strerror}") from error
        except Exception as error:  # the Rust library raises plain Exception for bad JSON
            raise MiniClipError(f"{tokenizer} is not a tokenizer: {error}") from error
        settings = read_settings(tokenizer_config)
        pad_token = settings.get("pad_token")
        if isinstance(pad_token, dict):  # an AddedToken written out in full
            pad_token = pad_token.get("content")
        if not pad_token:
            pad_token = next((token for token in PAD_TOKENS if rust.token_to_id(token) is not None), "[PAD]")
        longest = settings.get("model_max_length", rules.max_tokens or 64)
        # 3: two special tokens and one word; for less, the library silently does not truncate
        if not isinstance(longest, int | float) or not longest >= 3:
            raise MiniClipError(f"{tokenizer_config}: model_max_length must be a number from 3, got {longest!r}")
        longest = rules.exact_length or int(min(longest, rules.max_tokens or 512, 512))
        return cls(rust, str(pad_token), longest, rules)

    def pad_to(self, length: int) -> None:
        """Pad every row to `length` tokens from now on, for a model that attends to its padding.

        CLIP's vocabulary has no padding token: OpenAI and open_clip pad with 0, whatever the settings say.
        """
        self._rust.enable_truncation(length)
        self.max_tokens = self.exact_length = length
        if self.pad_id == self._rust.token_to_id(CLIP_END):
            self.pad_id = 0

    @property
    def highest_id(self) -> int:
        return max(self._rust.get_vocab().values())

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """B texts -> `input_ids`, `attention_mask`, each (B, L) int64 with L the longest of this batch, or exact."""
        return self.pad(self.ids(texts))

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without padding."""
        return [encoding.ids for encoding in self._encode(texts)]

    def pad(self, ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of B texts -> `input_ids`, `attention_mask` as above."""
        longest = self.exact_length or max(map(len, ids), default=0)
        input_ids = np.full((len(ids), longest), self.pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(ids), longest), dtype=np.int64)
        for row, own in enumerate(ids):
            input_ids[row, : len(own)], attention_mask[row, : len(own)] = own, 1
        return input_ids, attention_mask

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        try:
            return list(self._rust.encode_batch([self._clean(_without_surrogates(text)) for text in texts]))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a damaged tokenizer.json makes Rust panic, which is not an Exception
            raise MiniClipError(f"tokenizer.json cannot be used ({error}); copy or export the bundle again") from error


def _without_surrogates(text: str) -> str:
    """The text without lone surrogates: a command line gives them for bytes that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json` as a dictionary; empty if there is none."""
    return read_settings(folder / "tokenizer_config.json")
