"""Write the tokenizer of a model made by others as the files of a run: `tokenizer.json`, `tokenizer_config.json`.

In: a Hugging Face folder. Out: both files, complete. Two things can be missing in that folder: SigLIP's lower case and
removal of punctuation are in the code of transformers, and older models have a vocabulary without a `tokenizer.json`.
"""

import re
import string
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as RustTokenizer

from miniclip.errors import MiniClipError, one_line
from miniclip.files import replace_atomically, write_json
from miniclip.inference.layouts import read_settings
from miniclip.inference.tokenizer import Tokenizer, read_tokenizer_config

MAX_TOKENS = 512


def write_tokenizer(source: Path, target: Path, max_tokens: int) -> Tokenizer:
    """Write the files of the tokenizer in `source` to `target`, for texts of at most `max_tokens`.

    Errors: `MiniClipError` when there is no tokenizer, or it cannot be written.
    """
    content = tokenizer_json(source)
    replace_atomically(target / "tokenizer.json", lambda path: path.write_bytes(content))
    settings = read_tokenizer_config(source)
    longest = settings.get("model_max_length")
    longest = int(min(longest, MAX_TOKENS)) if isinstance(longest, int | float) else MAX_TOKENS
    write_json(target / "tokenizer_config.json", {**settings, "model_max_length": min(max_tokens, longest)})
    return Tokenizer.from_folder(target)


def tokenizer_json(folder: Path) -> bytes:
    """The bytes of a complete `tokenizer.json`; a file that is complete is returned unchanged."""
    path = folder / "tokenizer.json"
    content = path.read_bytes() if path.exists() else _converted(folder)
    steps = _text_rules(folder)
    if not steps:
        return content
    try:
        rust = RustTokenizer.from_str(content.decode())
    except Exception as error:  # the Rust library raises plain Exception for bad JSON
        raise MiniClipError(f"{path} is not a tokenizer: {error}") from error
    rust.normalizer = normalizers.Sequence([*steps, *([rust.normalizer] if rust.normalizer is not None else [])])
    return str(rust.to_str(pretty=True)).encode()


def _text_rules(folder: Path) -> list[Any]:
    """The normalisation of SigLIP before its tokenizer: lower case, and in the first version no punctuation."""
    if not str(read_settings(folder / "config.json").get("model_type", "")).startswith("siglip"):
        return []
    settings = read_tokenizer_config(folder)
    steps: list[Any] = []
    if settings.get("tokenizer_class") in ("SiglipTokenizer", "SiglipTokenizerFast"):
        steps += [normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), "")]
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    return [normalizers.Lowercase(), *steps] if settings.get("do_lower_case", True) else steps


def _converted(folder: Path) -> bytes:
    """Convert a vocabulary (`vocab.txt`, or `vocab.json` with `merges.txt`) with transformers."""
    from transformers import AutoTokenizer

    refusal = f"{folder} has no tokenizer.json (the fast tokenizer)"
    if not any((folder / name).exists() for name in ("vocab.txt", "vocab.json")):
        raise MiniClipError(f"{refusal}; save it with transformers")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return str(tokenizer.backend_tokenizer.to_str(pretty=True)).encode()
    except Exception as error:  # transformers raises many types
        raise MiniClipError(f"{refusal}, and its vocabulary cannot be converted: {one_line(error)}") from error
