"""A bundle: the folder that search needs, with a manifest of hashes, fingerprint and certificate.

    README.md  config.json  preprocessor_config.json  tokenizer.json  tokenizer_config.json  manifest.json
    onnx/vision_model{,_fp16,_quantized}.onnx  onnx/text_model{,_fp16,_quantized}.onnx

In: such a folder, ours or another one in the Hugging Face / transformers.js layout. Out: a `Bundle`; its files are
checked against their SHA-256 before they are opened. A bundle without a manifest is opened unchecked, and a message
says so; its score calibration, if there is one, is in `score_calibration.json`.
"""

import mmap
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from miniclip.cache import cache_folder
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.inference.layouts import (
    EXTERNAL_DATA,
    TOWERS,
    Layout,
    TextRules,
    find_layout,
    other_graphs,
    read_settings,
    text_rules,
)
from miniclip.inference.manifest import fingerprint_of, read_manifest, sha256_of
from miniclip.inference.precision import is_among
from miniclip.inference.score_calibration import ScoreCalibration
from miniclip.inference.tokenizer import Tokenizer
from miniclip.installation import program

CALIBRATION_FILE = "score_calibration.json"
# a snapshot in the hub's own cache: the repository, the commit, and the folder inside
SNAPSHOT = re.compile(
    r".*/models--(?P<user>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})(?P<inside>/.*)?"
)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `manifest` is empty for a bundle made by others."""

    folder: Path
    manifest: dict[str, Any] = field(repr=False)
    layout: Layout = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> "Bundle":
        """Open and check the layout. Model files are checked on use (`model_path`).

        Errors: `MiniClipError` when the folder is not a bundle, has a newer format, or a file does not match its hash.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise MiniClipError(f"no bundle at {folder}; make one with: {program('export')} --run RUN --out {folder}")
        manifest: dict[str, Any] = {}
        if (folder / "manifest.json").exists():
            manifest = read_manifest(folder / "manifest.json")
        layout = find_layout(list_names(folder))
        if layout is None:
            raise MiniClipError(
                f"{folder} holds no onnx/vision_model*.onnx with its text_model; is it a bundle? "
                f"(it holds {other_graphs(list_names(folder))})"
            )
        bundle = cls(folder, manifest, layout)
        for name in layout.settings:
            if (folder / name).exists() or name in manifest.get("files", {}):
                bundle.check_file(name)
            elif name in (layout.preprocessor, layout.tokenizer):
                raise MiniClipError(f"the bundle {folder} lacks {name}; export it again")
        return bundle

    @property
    def precisions(self) -> list[str]:
        """The precisions for which both towers are there, in the order of the table in precision.py."""
        return list(self.layout.graphs)

    @cached_property
    def name(self) -> str:
        """The name of its folder, or of its repository."""
        folder = self.folder.resolve()
        found = SNAPSHOT.fullmatch(folder.as_posix())
        return f"{found['user']}/{found['name']}{found['inside'] or ''}" if found else folder.name

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the embedding space: equal for all precisions of one export, different for other weights."""
        if self.manifest:
            return str(self.manifest["fingerprint"])
        if found := SNAPSHOT.fullmatch(self.folder.resolve().as_posix()):  # independent of the downloaded files
            return fingerprint_of([*map(str, found.groups())])
        graphs = [self.folder / self.layout.graphs[self.precisions[0]][tower] for tower in TOWERS]
        files = [*graphs, self.folder / self.layout.tokenizer, self.folder / self.layout.preprocessor]
        files += sorted(path for graph in {*graphs} for path in graph.parent.glob(f"{graph.name}[_.]data*"))
        return fingerprint_of([sha256_of(path) for path in files])

    @property
    def logit_scale(self) -> float:
        """log(1/T); CLIP's upper bound log(100) if the bundle has no value."""
        return float(self.manifest.get("logit_scale", 4.6052))

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The measured parity and speed of every precision, if `export.benchmark` has run on this bundle."""
        return self.manifest.get("certificate")

    @cached_property
    def match(self) -> ScoreCalibration | None:
        """The calibration of scores, if the bundle has one."""
        where, dim = self.calibration_file, self.manifest.get("embedding_dim")
        value = self.manifest.get("match") if self.manifest else read_settings(where) or None
        return ScoreCalibration.from_manifest(value, str(where), dim)

    @property
    def calibration_file(self) -> Path:
        """The file with `match`: the manifest of our bundles, a separate file for models of others.

        The calibration of a bundle from the hub is in our own cache, because the hub's cache must not change.
        """
        if self.manifest:
            return self.folder / "manifest.json"
        if self.is_from_hub:
            return cache_folder() / "bundles" / self.fingerprint / CALIBRATION_FILE
        return self.folder / CALIBRATION_FILE

    @property
    def is_from_hub(self) -> bool:
        """Whether the folder is a snapshot in the hub's cache."""
        return SNAPSHOT.fullmatch(self.folder.resolve().as_posix()) is not None

    def copy_to(self, folder: Path) -> None:
        """Copy the bundle with its calibration and the settings in the folders above it; the copy is complete."""
        shutil.copytree(self.folder, folder)
        for name in self.layout.settings:
            if name.startswith("../") and (self.folder / name).exists():
                shutil.copyfile(self.folder / name, folder / Path(name).name)
        if not self.manifest and self.calibration_file.exists():
            shutil.copyfile(self.calibration_file, folder / CALIBRATION_FILE)

    @cached_property
    def transform(self) -> ImageTransform:
        return ImageTransform.from_file(self.folder / self.layout.preprocessor)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        files = (self.folder / self.layout.tokenizer, self.folder / self.layout.tokenizer_config)
        return Tokenizer.from_files(*files, self.text_rules)

    @cached_property
    def text_rules(self) -> TextRules:
        """The input that its text model expects; for our own bundles, the tokenizer is enough."""
        return TextRules() if self.manifest else text_rules(self.layout, self.folder)

    @cached_property
    def is_pooled(self) -> bool:
        """Whether the embedding is the output `pooler_output`, as in SigLIP, which has no projection after it."""
        return str(read_settings(self.folder / self.layout.config).get("model_type", "")).startswith("siglip")

    def model_path(self, tower: str, precision: str) -> Path:
        """The checked ONNX file of one tower; `MiniClipError` when it is missing or was changed."""
        if not is_among(precision, self.precisions):
            raise MiniClipError(f"{self.folder} has no {precision}; it has {', '.join(self.precisions)}")
        name = self.layout.files(precision)[tower]
        self.check_file(name)
        path = self.folder / name
        for location in _external_files(path):
            if self.manifest or not _is_own_data(path, location):
                raise MiniClipError(
                    f"{path} keeps weights in other files, which cannot be checked ({location!r}); "
                    "export the bundle again"
                )
            if not (path.parent / location).is_file():
                raise MiniClipError(f"{path.parent / location} is missing, and {path.name} needs it; copy it again")
        return path

    def check_file(self, name: str) -> None:
        """Compare one file with its hash in the manifest."""
        if not self.manifest:
            return
        expected = self.manifest["files"].get(name)
        path = self.folder / name
        if expected is None:
            raise MiniClipError(f"{path} is not listed in manifest.json; export the bundle again")
        if not path.exists():
            raise MiniClipError(f"{path} is missing; export the bundle again, or copy it again")
        try:
            matches = sha256_of(path) == expected["sha256"]
        except OSError as error:
            raise MiniClipError(f"cannot read {path}: {error.strerror}; copy or export the bundle again") from error
        if not matches:
            raise MiniClipError(f"{path} does not match its SHA-256 in manifest.json; copy or export the bundle again")


def list_names(folder: Path) -> list[str]:
    """The files of a folder, two levels deep; for a folder inside a hub repository, also the files above it."""
    names = [path.relative_to(folder).as_posix() for depth in ("*", "*/*") for path in folder.glob(depth)]
    found = SNAPSHOT.fullmatch(folder.resolve().as_posix())
    for level in range(1, 1 + (found["inside"] or "").count("/") if found else 0):
        up = "../" * level
        names += [up + path.name for path in folder.joinpath(up).resolve().glob("*.json")]
    return names


def is_bundle(folder: Path) -> bool:
    """Whether a folder contains both towers in a known layout."""
    return find_layout(list_names(folder)) is not None


def _is_own_data(graph: Path, location: str) -> bool:
    """Whether external data is `model.onnx_data` or the like beside `model.onnx`: the fingerprint covers those."""
    return any(re.fullmatch(re.escape(graph.name + ending) + r"(_\d+)?", location) for ending in EXTERNAL_DATA)


def _external_files(path: Path) -> list[str]:
    """The files in which an ONNX file stores weights, in addition to itself."""
    if not path.exists() or path.stat().st_size == 0:
        return []  # onnxruntime reports the fault
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"location") < 0:  # no external data without this key; most models need not be parsed
            return []
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            return sorted(set(_locations(onnx.ModelProto.FromString(content[:]))))
        except DecodeError:
            return []  # as above


def _locations(part: Any) -> Iterator[str]:
    """The files that tensors of a protobuf message name for their data, including graphs inside nodes and functions."""
    import onnx
    from google.protobuf.message import Message

    if isinstance(part, onnx.TensorProto):
        if part.data_location == onnx.TensorProto.EXTERNAL or part.external_data:
            yield next((str(entry.value) for entry in part.external_data if entry.key == "location"), "")
        return
    for field_, value in part.ListFields():
        if field_.message_type:
            for own in [value] if isinstance(value, Message) else value:
                yield from _locations(own)
