"""Evaluation of a split: what is measured, and what is left out of it."""

import shutil
from pathlib import Path

import pytest

from miniclip.bundle import Bundle
from miniclip.captions import read_captions
from miniclip.encoders import OnnxEncoders
from miniclip.errors import MiniClipError
from miniclip.evaluation import embed_split, recall_table
from miniclip.metrics import retrieval_recalls

KEYS = {f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)} | {"mean_recall"}


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


@pytest.mark.parametrize("protocol", ["karpathy", "paired"])
def test_recalls_are_those_of_the_embeddings(encoders: OnnxEncoders, picture_folder: Path, protocol: str) -> None:
    embedded = embed_split(encoders, read_captions(picture_folder))
    assert (len(embedded.image_embeds), len(embedded.text_embeds)) == (12, 24)
    result = embedded.recalls(protocol)
    assert set(result) == KEYS and all(0 <= value <= 1 for value in result.values())
    assert result["mean_recall"] == pytest.approx(sum(result[key] for key in KEYS - {"mean_recall"}) / 6)
    assert result == retrieval_recalls(
        embedded.text_embeds, embedded.image_embeds, embedded.table.image_of_caption, protocol
    )


def test_unreadable_picture_goes_with_its_captions(
    encoders: OnnxEncoders, picture_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(picture_folder, tmp_path / "pictures"))
    damaged = sorted(folder.glob("*-*"))[3]
    damaged.write_text("no picture any more")
    embedded = embed_split(encoders, read_captions(folder))
    assert (len(embedded.image_embeds), len(embedded.text_embeds)) == (11, 22)
    assert [skipped.name for skipped in embedded.table.skipped] == [damaged.name]
    whole = embed_split(encoders, read_captions(picture_folder))
    kept = [row for row, path in enumerate(whole.table.image_paths) if path.name != damaged.name]
    assert embedded.image_embeds == pytest.approx(whole.image_embeds[kept], abs=1e-5)


def test_nothing_to_measure_is_an_error(encoders: OnnxEncoders, picture_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(picture_folder, tmp_path / "pictures"))
    (folder / "metadata.csv").unlink()
    with pytest.raises(MiniClipError, match="the data has no captions"):
        embed_split(encoders, read_captions(folder))
    shutil.copy(picture_folder / "metadata.csv", folder)
    for picture in folder.glob("*-*"):
        picture.write_text("no picture any more")
    with pytest.raises(MiniClipError, match=r"no picture could be read; the first: .*: not a picture"):
        embed_split(encoders, read_captions(folder))


def test_unknown_protocol_is_named(encoders: OnnxEncoders, picture_folder: Path) -> None:
    embedded = embed_split(encoders, read_captions(picture_folder))
    with pytest.raises(MiniClipError, match="--protocol must be one of karpathy, paired, got clip"):
        embedded.recalls("clip")


def test_table_shows_percent() -> None:
    shown = recall_table({"tiny fp32": dict.fromkeys(KEYS, 0.125)})
    assert shown.splitlines()[1].split() == ["tiny", "fp32", "12.5/12.5/12.5", "12.5/12.5/12.5", "12.5"]
