"""Captions and names of indexed images: lone surrogates, bytes that are not UTF-8, unreadable caption files."""

import json
import os
import shutil
from pathlib import Path

from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.indexing import counts, encoders, images

__all__ = ["encoders", "images"]  # fixtures


def test_lone_surrogates_in_captions_and_names_are_escaped(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    rows = [("a.png", "a dog \ud83d"), ("b.png", "fine"), ("no\ud83d.png", "lost")]
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
    (images / "metadata.jsonl").write_text("\n".join(lines))
    for source in (images, images / "metadata.jsonl"):
        out = tmp_path / f"index-{source.suffix}"
        report = update_index(str(source), encoders, out)
        assert list(ImageIndex.open(out).captions)[:2] == [["a dog \\ud83d"], ["fine"]]
        assert "no\\ud83d.png" in [problem.path for problem in report.skipped]


def test_names_that_are_not_utf_8_beside_a_caption_file_are_reported(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    shutil.copy(images / "c.png", images / os.fsdecode(b"caf\xe9.png"))
    (images / "captions.csv").write_text("image,caption\na.png,first\nb.png,second\n")
    report = update_index(str(images / "captions.csv"), encoders, tmp_path / "index")
    assert counts(report) == (2, 0, 0, 2)  # c.png has no caption either


def test_folder_that_is_not_utf_8_with_two_caption_files_is_indexed(
    encoders: OnnxEncoders, images: Path, tmp_path: Path
) -> None:
    folder = images.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    for name in ("captions.csv", "more.csv"):
        (folder / name).write_text("image,caption\na.png,first\n")
    report = update_index(str(folder), encoders, tmp_path / "index")
    assert counts(report) == (3, 0, 0, 1) and report.skipped[0].reason.startswith("captions not read: ")


def test_captions_stay_if_the_caption_file_cannot_be_read(encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "index", [["cap a"], ["cap b"], []]
    (images / "captions.csv").write_text("image,caption\na.png,cap a\nb.png,cap b\n")
    update_index(str(images), encoders, out)
    assert list(ImageIndex.open(out).captions) == own
    (images / "more.csv").write_text("image,caption\na.png,other\n")  # two caption files: ambiguous
    assert counts(update_index(str(images), encoders, out)) == (0, 3, 0, 1)
    shutil.copy(images / "c.png", images / "b.png")
    assert counts(update_index(str(images), encoders, out)) == (1, 2, 0, 1)
    assert list(ImageIndex.open(out).captions) == own
    (images / "captions.csv").unlink()
    assert counts(update_index(str(images), encoders, out))[3] == 0
    assert list(ImageIndex.open(out).captions) == [["other"], [], []]
