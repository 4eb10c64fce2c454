"""The layouts of bundles that others publish: the role of each file, and the input that their text models expect.

In: the file names of a folder or of a repository, and the settings in it. Out: a `Layout` and `TextRules`.

| layout | towers | settings |
|---|---|---|
| towers | `[onnx/]{vision,text}_model[SUFFIX].onnx` | ours, Xenova, onnx-community |
| one graph | `[onnx/]model[SUFFIX].onnx`, both towers in one file | jina-clip |
| open_clip | `visual/model.onnx`, `textual/model.onnx` | immich-app; the settings are open_clip's |
"""

import json
import re
import string
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError
from miniclip.inference.precision import PRECISIONS, file_endings, of_tower

TOWERS = ("vision", "text")
SETTINGS = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
OPEN_CLIP = {"vision": "visual/model.onnx", "text": "textual/model.onnx"}
OPEN_CLIP_SETTINGS = (
    "config.json",
    "visual/preprocess_cfg.json",
    "textual/tokenizer.json",
    "textual/tokenizer_config.json",
)
EXTERNAL_DATA = ("_data", ".data")  # optimum and PyTorch append them to the name of a graph
CONTEXT_LENGTH = 77  # of text models of CLIP and open_clip whose settings have no length
SIGLIP_LENGTH = 64  # of every SigLIP and SigLIP 2; transformers leaves it out of config.json
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def onnx_name(tower: str, precision: str) -> str:
    """The path of one tower at one precision inside a bundle, such as `onnx/text_model_fp16.onnx`."""
    return f"onnx/{tower}_model{PRECISIONS[precision].suffix}.onnx"


@dataclass(frozen=True)
class Layout:
    """The path of every file, relative to the bundle's folder. `graphs[precision][tower]` is a file name."""

    name: str
    graphs: dict[str, dict[str, str]]
    config: str
    preprocessor: str
    tokenizer: str
    tokenizer_config: str

    @property
    def settings(self) -> tuple[str, ...]:
        return (self.config, self.preprocessor, self.tokenizer, self.tokenizer_config)

    @property
    def is_one_graph(self) -> bool:
        """Whether one file contains both towers."""
        return any(towers["vision"] == towers["text"] for towers in self.graphs.values())

    def files(self, precision: str) -> dict[str, str]:
        """The file of each tower."""
        return {tower: self.graphs[of_tower(precision, tower)][tower] for tower in TOWERS}


def find_layout(names: Collection[str]) -> Layout | None:
    """The layout of these file names (relative, with forward slashes); None if no precision has both towers."""
    for place in ("onnx/", ""):
        towers = {
            precision: {tower: f"{place}{tower}_model{row.suffix}.onnx" for tower in TOWERS}
            for precision, row in PRECISIONS.items()
        }
        if graphs := _complete(towers, names):
            return Layout("towers", graphs, *_settings(SETTINGS, names))
    if all(name in names for name in OPEN_CLIP.values()):
        return Layout("open_clip", {"fp32": OPEN_CLIP}, *OPEN_CLIP_SETTINGS)
    for place in ("onnx/", ""):
        one = {p: dict.fromkeys(TOWERS, f"{place}model{row.suffix}.onnx") for p, row in PRECISIONS.items()}
        if graphs := _complete(one, names):
            return Layout("one graph", graphs, *_settings(SETTINGS, names))
    return None


def _complete(graphs: dict[str, dict[str, str]], names: Collection[str]) -> dict[str, dict[str, str]]:
    return {precision: towers for precision, towers in graphs.items() if all(n in names for n in towers.values())}


def _settings(wanted: tuple[str, ...], names: Collection[str]) -> list[str]:
    """Each settings file: beside the graphs, or above them for a folder inside a repository."""
    above = ("", "../", "../../")
    return [next((up + name for up in above if up + name in names), name) for name in wanted]


def other_graphs(names: Collection[str]) -> str:
    """The content of a folder without a known layout, for the message that refuses it."""
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    if not graphs:
        return "no ONNX file"
    shown = ", ".join(graphs[:4]) + (", ..." if len(graphs) > 4 else "")
    return f"{shown}; MiniCLIP runs both towers in {file_endings()}"


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object of settings; empty if there is no such file."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise MiniClipError(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise MiniClipError(f"{path} is not a JSON object")
    return settings


@dataclass(frozen=True)
class TextRules:
    """The texts and tokens that a text model expects.

    `exact_length`: every row has this many tokens, because the model attends to the padding. `max_tokens`: no row has
    more.
    """

    exact_length: int | None = None
    max_tokens: int | None = None
    lower_case: bool = False
    canonicalize: bool = False

    def clean(self, text: str) -> str:
        """The text in the form of the training texts. `canonicalize` of open_clip and SigLIP removes punctuation."""
        if self.canonicalize:
            text = text.replace("_", " ").translate(WITHOUT_PUNCTUATION)
            text = re.sub(r"\s+", " ", text).strip()
        return text.lower() if self.lower_case or self.canonicalize else text


def text_rules(layout: Layout, folder: Path) -> TextRules:
    """The rules of a bundle that others made, from its settings.

    Errors: `MiniClipError` when each text needs its language as a prefix (NLLB), which a search box does not know.
    """
    config = read_settings(folder / layout.config)
    if layout.name == "open_clip":
        text = _object(config, "text_cfg")
        if "nllb" in str(text.get("hf_tokenizer_name", "")).lower():
            raise MiniClipError(
                f"{folder}: its text model (NLLB) needs the language of each text; choose another bundle"
            )
        length = _length(text.get("context_length")) or CONTEXT_LENGTH
        clean = _object(text, "tokenizer_kwargs").get("clean")
        return TextRules(length, length, lower_case=clean == "lower", canonicalize=clean == "canonicalize")
    lower_case = bool(read_settings(folder / layout.tokenizer_config).get("do_lower_case"))
    longest = _length(_object(config, "text_config").get("max_position_embeddings"))
    model_type = str(config.get("model_type", ""))
    if model_type.startswith("siglip"):
        return TextRules(longest or SIGLIP_LENGTH, longest or SIGLIP_LENGTH, lower_case)
    if model_type == "clip":
        return TextRules(None, longest or CONTEXT_LENGTH, lower_case)
    return TextRules(None, longest, lower_case)


def _object(values: dict[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _length(value: Any) -> int | None:
    return value if isinstance(value, int) and 3 <= value <= 1 << 16 else None
