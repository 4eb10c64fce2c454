"""The models of the extra `ocr`: they read drawn text, find none in noise, and take images of any shape."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.text_images import text_images
from miniclip.index import image_texts
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.text_reader import TextReader, can_read_text
from miniclip.search.query import Query
from miniclip.search.searcher import Searcher
from tests.support.camera_files import encode
from tests.support.indexing import encoders

pytest.importorskip("rapidocr", reason="the extra [ocr] is not installed")
__all__ = ["encoders"]  # a fixture
COUNT, SEED = 24, 11


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader()


def test_an_image_is_found_by_its_words(
    encoders: OnnxEncoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_texts, "can_read_text", can_read_text)
    folder = tmp_path / "images"
    folder.mkdir()
    shown = list(text_images(COUNT, SEED))
    for number, one in enumerate(shown):
        one.image.save(folder / f"{number:02}.jpg")
    assert update_index(str(folder), encoders, tmp_path / "index").with_text >= 0.9 * COUNT
    searcher = Searcher(ImageIndex.open(tmp_path / "index"), encoders)
    chance = random.Random(SEED)
    queries = [Query(texts=(one.query(chance),), names=True, top_k=1) for one in shown]
    found = [searcher.search(query).hits[0].path.name for query in queries]
    assert np.mean([name == f"{number:02}.jpg" for number, name in enumerate(found)]) >= 0.8


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (31, 33), (5000, 40), (7000, 6000)], ids=str)
def test_an_image_without_text_has_none_at_any_shape(reader: TextReader, size: tuple[int, int]) -> None:
    assert reader.read(encode(Image.new("RGB", size, (90, 120, 200)), "PNG")) == ""


def test_noise_shows_no_text(reader: TextReader) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    assert reader.read(encode(Image.fromarray(noise), "PNG")) == ""
