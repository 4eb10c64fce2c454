"""Targets for tests and the fuzzer: readers of files made by others, each as a function of bytes.

A target keeps valid files in its own folder, replaces one of them with the bytes, and lets the library read them
completely. The first byte chooses the file, so that one target covers a whole folder.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from miniclip.errors import MiniClipError
from tests.hostile.seeds import CAPTIONS, images, make_bundle, make_index, make_run


@dataclass(frozen=True)
class Target:
    """`names` are the files from which the first byte chooses; `seeds` are valid inputs."""

    name: str
    names: tuple[str, ...]
    seeds: list[bytes]
    read: Callable[[str, bytes], object]  # name and content of the file

    def __call__(self, data: bytes) -> bool:
        """Read one input; returns whether the library refused it. Errors other than `MiniClipError` are not caught."""
        chosen, content = data[:1] or b"\0", data[1:]
        return self.feed(self.names[chosen[0] % len(self.names)], content)

    def feed(self, name: str, content: bytes) -> bool:
        try:
            self.read(name, content)
        except MiniClipError as error:
            assert str(error).strip(), "an error without a word"
            return True
        return False


def open_target(name: str, folder: Path) -> Target:
    """Make the valid files of a target in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return {"pictures": _images, "captions": _captions, "bundle": _bundle, "index": _index, "config": _config,
            "run": _run}[name](folder)  # fmt: skip


def _target(name: str, whole: dict[str, bytes], read: Callable[[str, bytes], object]) -> Target:
    seeds = [bytes([number]) + content for number, content in enumerate(whole.values())]
    return Target(name, tuple(whole), seeds, read)


def _images(folder: Path) -> Target:
    from miniclip.data.images import read_image
    from miniclip.data.transform import ImageTransform

    transform = ImageTransform(32, 32, (0.5,) * 3, (0.5,) * 3, resize_shortest_px=36)

    def read(name: str, content: bytes) -> None:
        image = read_image(content, transform.min_size_px, max_frames=3)
        assert image.image.mode == "RGB" and image.width_px > 0
        assert transform(image.image).shape == (3, 32, 32)

    return _target("pictures", images(), read)


def _captions(folder: Path) -> Target:
    from miniclip.data.captions import read_captions
    from miniclip.data.splits import SPLITS

    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(b"never opened")

    def read(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        try:
            for source in (folder, folder / name):
                table = read_captions(source)
                assert all(path.resolve().parent == folder.resolve() for path in table.image_paths)
                assert set(table.splits) <= {*SPLITS, ""} and len(table.captions) == len(table.image_of_caption)
        finally:
            (folder / name).unlink()

    return _target("captions", CAPTIONS, read)


def _bundle(folder: Path) -> Target:
    from miniclip.inference.bundle import Bundle

    whole = make_bundle(folder)

    def read(name: str, content: bytes) -> None:
        if name != "manifest.json":  # its hash would refuse every change: the other files are read without a manifest
            (folder / "manifest.json").unlink(missing_ok=True)
        (folder / name).write_bytes(content)
        try:
            bundle = Bundle.open(folder)
            assert bundle.fingerprint is not None and math.isfinite(bundle.logit_scale) and bundle.match is not ...
            assert bundle.certificate is None or bundle.certificate.keys() is not None
            for tower in ("vision", "text"):
                bundle.model_path(tower, bundle.precisions[0])
            bundle.tokenizer(["a red circle", "dog"])
            assert bundle.transform.height_px
        finally:
            for own in {name, "manifest.json"}:
                (folder / own).write_bytes(whole[own])

    readable = {name: content for name, content in whole.items() if not name.startswith("onnx/")}
    return _target("bundle", readable, read)


def _index(folder: Path) -> Target:
    from miniclip.index.image_index import ImageIndex

    whole = make_index(folder)

    def read(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        try:
            index = ImageIndex.open(folder)
            assert len(index.image_embeds) == len(index) == len(index.content) and index.captions.distinct() is not None
            assert len([index.paths.text(row) for row in range(len(index))]) and len(index.embeds([0])) == 1
        finally:
            (folder / name).write_bytes(whole[name])

    return _target("index", whole, read)


def _config(folder: Path) -> Target:
    from miniclip.models.config import config_from_dict, load_config

    def read(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        config = load_config(folder / name)
        assert config_from_dict(json.loads(json.dumps(config.to_dict())), "itself") == config

    recipes = Path(__file__).parents[2] / "configs"
    return _target("config", {path.name: path.read_bytes() for path in sorted(recipes.glob("*.toml"))}, read)


def _run(folder: Path) -> Target:
    from miniclip.models.calibration_set import CalibrationSet
    from miniclip.models.checkpoint import load_run, load_training_state
    from miniclip.models.pt_file import read_checkpoint

    whole = make_run(folder)

    def read(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        try:
            if name == "calibration.npz":
                calibration = CalibrationSet.load(folder)
                assert calibration is not None
                calibration.pixel_values(TRANSFORM)
            elif name == "training_state.pt":
                load_training_state(folder)
            elif name == "original.pt":
                read_checkpoint(folder / name)
            else:
                run = load_run(folder)
                assert run.fingerprint and run.encoders() is not None
        finally:
            (folder / name).write_bytes(whole[name])

    from tests.support.training import TRANSFORM

    return _target("run", whole, read)
