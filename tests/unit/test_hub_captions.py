"""Captions of data sets on the Hugging Face hub."""

import io
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from miniclip.data.captions import read_captions
from miniclip.errors import MiniClipError
from tests.support.caption_files import add_images


def encoded(colour: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(stream, "BMP")
    return stream.getvalue()


class HubPart(list[dict[str, Any]]):
    """The part of a `datasets.Dataset` that MiniCLIP uses: rows, features and `cast_column`."""

    features: dict[str, Any]

    def cast_column(self, name: str, feature: Any) -> "HubPart":
        assert name == "image" and feature.decode is False
        return self


def offer_on_the_hub(monkeypatch: pytest.MonkeyPatch, parts: dict[str, list[dict[str, Any]]]) -> None:
    class HubImage:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    def load_dataset(name: str) -> dict[str, HubPart]:
        if name != "someone/pairs":
            raise ConnectionError("no\nroute")
        hub_parts = {}
        for part, rows in parts.items():
            hub_parts[part] = HubPart(rows)
            hub_parts[part].features = dict.fromkeys(rows[0]) | {"image": HubImage()}
        return hub_parts

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset, Image=HubImage))


def test_hub_dataset_with_one_row_per_caption_gives_one_png_per_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    add_images(tmp_path, "own.png")
    rows = {
        "train": [
            {"image": {"bytes": encoded(1), "path": "1.bmp"}, "caption": "one"},
            {"image": {"bytes": encoded(1), "path": "1.bmp"}, "caption": "uno"},
            {"image": {"bytes": b"damaged", "path": None}, "caption": "nothing"},
        ],
        "validation": [{"image": {"bytes": None, "path": str(tmp_path / "own.png")}, "caption": ["two", "due"]}],
    }
    offer_on_the_hub(monkeypatch, rows)
    table = read_captions("hf:someone/pairs")
    assert [table.captions_of(0), table.captions_of(1)] == [["one", "uno"], ["two", "due"]]
    assert table.splits == ["train", "val"]
    assert table.image_paths[1] == tmp_path / "own.png"
    with Image.open(table.image_paths[0]) as image:
        assert image.format == "PNG" and image.getpixel((0, 0)) == (1, 0, 0)
    assert [(entry.name, entry.split) for entry in table.skipped] == [("train row 2", "train")]


def test_hub_dataset_with_one_split_is_split_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path))
    rows = [{"image": {"bytes": encoded(n // 2), "path": None}, "caption_0": f"{n}"} for n in range(20)]
    offer_on_the_hub(monkeypatch, {"train": rows})
    assert Counter(read_captions("hf:someone/pairs").splits) == {"train": 8, "val": 1, "test": 1}


def test_hub_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    offer_on_the_hub(monkeypatch, {})
    with pytest.raises(MiniClipError, match=r"cannot load hf:someone/else \(no route\); check the name"):
        read_captions("hf:someone/else")


def test_hub_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MiniClipError, match=r"pip install .*\[datasets\]"):
        read_captions("hf:someone/pairs")
