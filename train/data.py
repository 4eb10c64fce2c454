"""What a run trains and validates on: the caption table, and the two sides that turn its rows into features.

In: `--data` and the config. Out: `TrainingData`, with unreadable images left out and prototypes, if any, put in.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from miniclip.data.caption_table import CaptionTable, check_skipped
from miniclip.data.captions import read_captions
from miniclip.data.prefetch import prefetch
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.inference.tokenizer import Tokenizer
from miniclip.models.config import Config
from miniclip.models.device import Device, cpu_device
from miniclip.models.dual_encoder import DualEncoder
from miniclip.models.pretrained import class_prototypes

from .distributed import say
from .param_groups import trained_blocks
from .tokens import Tokens
from .tower_inputs import Images, Texts

MIN_SPLIT = 4  # images that a seeded split makes 2, 1 and 1 of
ENOUGH = (  # one alone has no deviation to standardise by, and nothing to tell it from
    "at least 2 and 1 are needed, which a split by seed makes of "
    f"{MIN_SPLIT} images; add images, or give them splits of their own"
)


@dataclass(frozen=True)
class TrainingData:
    """Training and validation images with their captions; `table` holds only images that could be read.

    Texts are the table's captions and, behind them, those of the prototypes.
    """

    table: CaptionTable
    images: Images
    texts: Texts
    prototypes: Tensor | None  # (K, d_vision) standardised image features whose names are texts

    def image_rows(self, split: str) -> np.ndarray:
        """Rows of the split's images."""
        return np.flatnonzero([own == split for own in self.table.splits])

    def text_rows(self, split: str) -> np.ndarray:
        """Rows of the split's captions."""
        return np.flatnonzero(np.isin(self.table.image_of_caption, self.image_rows(split)))

    def digest(self) -> str:
        """SHA-256 of the images' names, their splits and their captions, wherever they lie."""
        table = self.table
        names = [path.name for path in table.image_paths]
        parts = [names, list(table.splits), list(table.captions), table.image_of_caption.tolist()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def load_data(
    sources: Sequence[str],
    config: Config,
    model: DualEncoder,
    transform: ImageTransform,
    tokenizer: Tokenizer,
    allow_missing: bool,
    device: Device | None = None,
) -> TrainingData:
    """Read the captions and prepare them: all of the first source, and the training splits of the others.

    Of the others, images that the first one holds out are left out, and counted.
    Errors: `MiniClipError` when more than 5 % of the rows are lost (unless `allow_missing`), or a split is missing.
    """
    first, *others = (read_captions(source, seed=config.data.seed) for source in sources)
    if len(first.image_paths) < MIN_SPLIT and "val" not in first.splits:
        raise MiniClipError(f"{sources[0]} has {len(first.image_paths)} images and no validation split; {ENOUGH}")
    tables = [first.split("train", "val"), *(other.split("train") for other in others)]
    for source, table in zip(sources, tables, strict=True):
        if not table.captions:
            raise MiniClipError(f"{source} has no captions to train on; see README for the caption formats")
        check_skipped(table, allow_missing)
    for place, source in enumerate(sources[1:], start=1):
        apart = tables[place].apart_from(first)
        if left_out := len(tables[place].image_paths) - len(apart.image_paths):
            say(f"{source}: {left_out:,} images not trained on, since {sources[0]} holds them out")
        tables[place] = apart
    table = reduce(CaptionTable.and_train, tables)
    return prepare(table, config, model, transform, tokenizer, allow_missing, device)


def prepare(
    table: CaptionTable,
    config: Config,
    model: DualEncoder,
    transform: ImageTransform,
    tokenizer: Tokenizer,
    allow_missing: bool = False,
    device: Device | None = None,
) -> TrainingData:
    """Compute what is frozen, drop what is unreadable. The model is on `device`, the CPU by default."""
    device = device or cpu_device()
    vision_blocks, text_blocks = trained_blocks(config.train)
    views, seed = config.train.views, config.train.seed
    images = Images(model.vision, vision_blocks, transform, table.image_paths, views, seed, device)
    skipped = images.skipped if images.checked else _unreadable(table, transform)
    if skipped:
        table = table.without(skipped)
        images.keep(np.asarray([row for row in range(len(images.paths)) if row not in skipped], dtype=np.int64))
    say("\n".join([*table.skipped_lines(), table.summary()]))
    check_skipped(table, allow_missing)
    train, val = table.splits.count("train"), table.splits.count("val")
    if train < 2 or val < 1:
        raise MiniClipError(
            f"of the images that can be read, {train} are for training and {val} for validation; {ENOUGH}"
        )

    captions, prototypes = list(table.captions), None
    if config.data.prototypes:
        prototypes, names = prototype_features(config)
        prototypes = device.put(prototypes)
        captions += [f"a photo of {_article(name)} {name}" for name in names]
    texts = Texts(model.text, text_blocks, Tokens(tokenizer, captions), device)
    return TrainingData(table, images, texts, prototypes)


def _unreadable(table: CaptionTable, transform: ImageTransform) -> dict[int, str]:
    """Rows of images that cannot be read, with the reason: better known now than after an hour."""
    loaded = prefetch(table.image_paths, transform.load, ahead=64)
    return {row: str(result) for row, result in loaded if isinstance(result, MiniClipError)}


def prototype_features(config: Config) -> tuple[Tensor, list[str]]:
    """The ImageNet classifier's weight rows as images (K, d), and their class names.

    A row of the classifier points where its class lies in the backbone's own feature space, so a thousand concepts come
    for free. Rows have another scale than features, so they are standardised among themselves, as images are.
    """
    weights, names = class_prototypes(config.model.vision)
    rows = torch.from_numpy(weights)
    return (rows - rows.mean(dim=0)) / rows.std(dim=0).clamp_min(1e-4), names


def _article(noun: str) -> str:
    return "an" if noun[:1].lower() in "aeiou" else "a"
