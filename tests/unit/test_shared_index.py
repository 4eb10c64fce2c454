"""Two simultaneous starts on one folder: one makes the index, and the other waits for it and uses it."""

import threading
from pathlib import Path

import numpy as np
import pytest

from miniclip.errors import IndexBusy
from miniclip.index.image_index import ImageIndex
from miniclip.index.indexer import update_index
from miniclip.index.location import bring_up_to_date, index_folder
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.drawing import draw_image

TIMEOUT_S = 120


class HeldEncoders(OnnxEncoders):
    """Encoders that embed images only after a release."""

    def embed_on_one_core(self, pixel_values: np.ndarray) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(TIMEOUT_S)
        return super().embed_on_one_core(pixel_values)


def test_the_second_of_two_starts_waits_and_embeds_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICLIP_CACHE", str(tmp_path / "cache"))
    images = tmp_path / "photos"
    images.mkdir()
    for colour in ("red", "green", "blue"):
        draw_image(colour, "circle").save(images / f"{colour}.png")
    bundle = Bundle.open(tiny_bundle)
    first, second = (kind(bundle, "cpu", "fp32", threads=1) for kind in (HeldEncoders, OnnxEncoders))
    first.begun, first.go = threading.Event(), threading.Event()
    said: dict[str, list[str]] = {"first": [], "second": []}
    folders: dict[str, Path] = {}

    def start(name: str, encoders: OnnxEncoders) -> threading.Thread:
        def say(line: str) -> None:
            said[name].append(line)
            if "waiting for it" in line:
                first.go.set()

        def make() -> None:
            folders[name] = bring_up_to_date(str(images), encoders, say)

        thread = threading.Thread(target=make)
        thread.start()
        return thread

    one = start("first", first)
    assert first.begun.wait(TIMEOUT_S)
    with pytest.raises(IndexBusy, match=r"another process .* is writing the index .*; wait for it, or stop it"):
        update_index(str(images), second, index_folder(str(images), bundle.fingerprint))
    two = start("second", second)
    for thread in (one, two):
        thread.join(TIMEOUT_S)
    assert folders["first"] == folders["second"] == index_folder(str(images), bundle.fingerprint)
    assert "3 images embedded" in said["first"][-1]
    assert said["second"][-1] == "another process is writing this index; waiting for it"
    assert len(ImageIndex.open(folders["second"])) == 3
