"""Texts to `input_ids`: padding, truncation, and faults in the files of a tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, pre_tokenizers, processors

from miniclip.errors import MiniClipError
from miniclip.inference.tokenizer import Tokenizer

VOCABULARY = {word: row for row, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "<pad>", "a", "red", "dog"])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = RustTokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=20, pad_id=0, direction="left")  # padding in the file must not matter
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    configure(tmp_path, pad_token="<pad>", model_max_length=6)
    return tmp_path


def configure(folder: Path, **settings: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_batch_is_padded_to_its_longest_text(folder: Path) -> None:
    input_ids, attention_mask = Tokenizer.from_folder(folder)(["a red dog", "dog", ""])
    assert input_ids.tolist() == [[1, 4, 5, 6, 2], [1, 6, 2, 3, 3], [1, 2, 3, 3, 3]]
    assert attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert input_ids.dtype == attention_mask.dtype == np.int64
    assert Tokenizer.from_folder(folder)(["dog"])[0].tolist() == [[1, 6, 2]]


def test_long_text_is_cut_and_keeps_its_special_tokens(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer(["a red dog a red dog"])[0].tolist() == [[1, 4, 5, 6, 4, 2]]
    assert tokenizer.ids(["a red dog a red dog", "dog", ""]) == [[1, 4, 5, 6, 4, 2], [1, 6, 2], [1, 2]]


def test_pad_token_may_be_an_added_token_written_in_full(folder: Path) -> None:
    configure(folder, pad_token={"__type": "AddedToken", "content": "<pad>", "lstrip": False}, model_max_length=6)
    assert Tokenizer.from_folder(folder).pad_id == 3


def test_an_unlimited_length_is_limited(folder: Path) -> None:
    configure(folder, pad_token="<pad>", model_max_length=1e30)
    assert Tokenizer.from_folder(folder).max_tokens == 512
    configure(folder, pad_token="<pad>")
    assert Tokenizer.from_folder(folder).max_tokens == 64


def test_a_missing_padding_token_is_found_for_roberta(folder: Path) -> None:
    """The settings of roberta-base name no padding token."""
    configure(folder)
    tokenizer = Tokenizer.from_folder(folder)
    configure(folder, pad_token="<pad>")
    assert tokenizer.pad_id == Tokenizer.from_folder(folder).pad_id


@pytest.mark.parametrize("text", ["\udcff red", "red\x00dog", "🐕" * 3, "\u202e dog", "dog " * 5000])
def test_no_text_gives_an_error(folder: Path, text: str) -> None:
    input_ids, _ = Tokenizer.from_folder(folder)([text, "dog"])
    assert input_ids.shape[1] <= 6 and input_ids[1, :3].tolist() == [1, 6, 2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pad_token": "<nothing>"}, "no token '<nothing>'"),
        ({"pad_token": "[PAD]"}, r"no token '\[PAD\]'"),
        ({"pad_token": 7}, "no token '7'"),
        ({"pad_token": "<pad>", "model_max_length": None}, "model_max_length must be"),
        ({"pad_token": "<pad>", "model_max_length": "long"}, "model_max_length must be"),
        ({"pad_token": "<pad>", "model_max_length": 1}, "model_max_length must be"),
        ({"pad_token": "<pad>", "model_max_length": -1}, "model_max_length must be"),
    ],
    ids=str,
)
def test_wrong_setting_is_named(folder: Path, settings: dict[str, Any], words: str) -> None:
    configure(folder, **settings)
    with pytest.raises(MiniClipError, match=words):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000], ids=repr)
def test_broken_file_is_named_in_one_line(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(MiniClipError) as refused:
        Tokenizer.from_folder(folder)
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_missing_tokenizer_is_named_and_missing_settings_are_not_needed(folder: Path) -> None:
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text().replace("<pad>", "[PAD]"))
    (folder / "tokenizer_config.json").unlink()
    assert Tokenizer.from_folder(folder).pad_id == 3
    (folder / "tokenizer.json").unlink()
    with pytest.raises(MiniClipError, match=r"cannot read .*tokenizer\.json: No such file"):
        Tokenizer.from_folder(folder)
