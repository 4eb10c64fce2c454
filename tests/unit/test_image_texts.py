"""Text in images is read once, stored and found; an index without it gets it later.

The reader here stands for a colour with a word; tests/slow/test_ocr.py tests the models of the extra `ocr`.
"""

import importlib.util
import json
import threading
from pathlib import Path

import lancedb
import numpy as np
import pytest
from PIL import Image

from demo.detail import facts
from demo.gallery_search import GallerySearch
from miniclip.cli.main import run
from miniclip.data.images import ImageSource, open_image
from miniclip.errors import MiniClipError, UnreadableImage
from miniclip.index import image_texts
from miniclip.index.image_index import ImageIndex
from miniclip.index.image_texts import read_texts
from miniclip.index.indexer import update_index
from miniclip.index.location import bring_up_to_date, is_up_to_date
from miniclip.index.settings import Settings, read_settings
from miniclip.index.store import open_writer
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.search.searcher import Searcher
from tests.support.indexing import encoders

__all__ = ["encoders"]  # a fixture
WORDS = {(255, 0, 0): "Invoice 2041\nTotal 12.90", (0, 0, 255): "Platform seven"}


class ColourReader:
    """Reads a word for each colour, and counts its calls."""

    def __init__(self) -> None:
        self.count, self.error = 0, None

    def read(self, source: ImageSource) -> str:
        self.count += 1
        if self.error is not None:
            raise self.error
        return WORDS.get(open_image(source).getpixel((5, 5)), "")


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> ColourReader:
    own = ColourReader()
    monkeypatch.setattr(image_texts, "can_read_text", lambda: True)
    monkeypatch.setattr(image_texts, "_reader", lambda: own)
    return own


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255)), ("c", (0, 255, 0))):
        Image.new("RGB", (20, 20), colour).save(folder / f"{name}.png")
    return folder


def texts(out: Path) -> dict[str, str]:
    index = ImageIndex.open(out)
    return {path.name: index.text(row) for row, path in enumerate(index.paths)}


def test_text_is_read_once_and_shared_by_copies(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, reader: ColourReader
) -> None:
    out = tmp_path / "index"
    report = update_index(str(images), encoders, out)
    assert report.with_text == 2 and "text found in 2" in str(report)
    assert texts(out) == {"a.png": WORDS[255, 0, 0], "b.png": WORDS[0, 0, 255], "c.png": ""}
    (images / "copy.png").write_bytes((images / "a.png").read_bytes())
    Image.new("RGB", (24, 24), (0, 0, 255)).save(images / "c.png")
    update_index(str(images), encoders, out)
    assert reader.count == 4 and texts(out)["copy.png"] == WORDS[255, 0, 0]
    assert texts(out)["c.png"] == WORDS[0, 0, 255]


def test_an_older_index_gains_text_without_embedding_again(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, reader: ColourReader
) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out, ocr=None)
    lancedb.connect(str(out)).open_table("pictures").drop_columns(["text"])
    values = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps(values | {"format": 4}))
    before = ImageIndex.open(out)
    assert before.unread.all() and not before.texts.content.size
    report = update_index(str(images), encoders, out)
    assert (report.added, report.kept, report.with_text) == (0, 3, 2)
    after = ImageIndex.open(out)
    assert np.array_equal(before.image_embeds, after.image_embeds) and not after.unread.any()


def test_no_ocr_is_kept_until_ocr_is_requested(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, reader: ColourReader
) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out, ocr=False)
    update_index(str(images), encoders, out)
    assert reader.count == 0 and read_settings(out).ocr is False
    monkeypatched = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: True if name == "rapidocr" else monkeypatched(name))
        update_index(str(images), encoders, out, ocr=True)
    assert reader.count == 3 and read_settings(out).ocr is True
    update_index(str(images), encoders, out, ocr=False)
    assert texts(out)["a.png"] == WORDS[255, 0, 0]  # texts that were read stay


def test_without_the_extra_ocr_names_the_package(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MiniClipError, match=r"pip install .*\[ocr\]"):
        update_index(str(images), encoders, tmp_path / "index", ocr=True)
    assert not (tmp_path / "index").exists()


def test_only_temporary_failures_are_retried(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, reader: ColourReader
) -> None:
    out = tmp_path / "index"
    reader.error = UnreadableImage("cannot be read (Stale file handle)", retryable=True)
    update_index(str(images), encoders, out)
    assert ImageIndex.open(out).unread.all()
    reader.error = UnreadableImage("its text cannot be read (error)")
    update_index(str(images), encoders, out)
    assert not ImageIndex.open(out).unread.any() and not any(texts(out).values())
    assert update_index(str(images), encoders, out).with_text == 0 and reader.count == 6


def test_a_stop_keeps_the_texts_read_so_far(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, reader: ColourReader
) -> None:
    out = tmp_path / "index"
    update_index(str(images), encoders, out, ocr=False)
    stop = threading.Event()
    stop.set()
    bundle = encoders.bundle
    settings = Settings(bundle.fingerprint, bundle.folder.resolve(), str(images))
    with open_writer(out, settings, encoders.dim) as writer:
        paths = writer.without_text()
        read_texts(writer, paths, stop)
        assert len(writer.without_text()) == len(paths) - 1


def test_a_folder_is_not_current_while_text_is_unread(
    encoders: OnnxEncoders, images: Path, monkeypatch: pytest.MonkeyPatch, reader: ColourReader
) -> None:
    fingerprint = encoders.bundle.fingerprint
    monkeypatch.setattr(image_texts, "can_read_text", lambda: False)
    index = bring_up_to_date(str(images), encoders, lambda line: None)
    assert is_up_to_date(str(images), index, fingerprint)
    monkeypatch.setattr(image_texts, "can_read_text", lambda: True)
    assert not is_up_to_date(str(images), index, fingerprint)
    bring_up_to_date(str(images), encoders, lambda line: None)
    assert is_up_to_date(str(images), index, fingerprint)


def test_the_large_view_shows_the_text(
    encoders: OnnxEncoders, images: Path, tmp_path: Path, reader: ColourReader
) -> None:
    update_index(str(images), encoders, tmp_path / "index")
    search = GallerySearch(Searcher(ImageIndex.open(tmp_path / "index"), encoders))
    assert ("Text in the image", "Invoice 2041 · Total 12.90") in facts(search, 0)
    assert "Text in the image" not in dict(facts(search, 2))


def test_words_in_an_image_find_it_and_are_shown(
    tiny_bundle: Path, images: Path, capsys: pytest.CaptureFixture[str], reader: ColourReader
) -> None:
    def search(*flags: str) -> str:
        assert run(["search", "invoice total", str(images), "--bundle", str(tiny_bundle), *flags]) == 0
        return capsys.readouterr().out

    first = search("--provider", "cpu").splitlines()[0]
    assert first.split("\t")[1].endswith("a.png") and "text: Invoice 2041 … Total 12.90" in first
    hits = json.loads(search("--provider", "cpu", "--json"))["results"]
    assert hits[0]["text"] == "Invoice 2041 … Total 12.90" and "text" not in hits[1]
    assert "text" not in json.loads(search("--provider", "cpu", "--json", "--no-names"))["results"][0]
