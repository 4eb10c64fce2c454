"""What a run trains and validates on: caption tables and, for heads, cached features.

In: `--data` and the config. Out: `PairFeatures`, pairs of picture and caption in the feature spaces of both backbones.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from miniclip.caption_table import CaptionTable, check_skipped
from miniclip.captions import read_captions
from miniclip.config import Config
from miniclip.errors import MiniClipError
from miniclip.images import ImageTransform
from miniclip.model import DualEncoder
from miniclip.pretrained import class_prototypes
from miniclip.tokenizer import Tokenizer
from train.features import image_features, text_features


@dataclass(frozen=True)
class PairFeatures:
    """Features of one split, images once and captions once each."""

    images: Tensor  # (N_images, d_vision) float32
    texts: Tensor  # (N_texts, d_text) float32
    image_of_caption: Tensor  # (N_texts,) int64


@dataclass(frozen=True)
class TrainingFeatures:
    """Training and validation split, and the prototypes that join the training batches, if any."""

    train: PairFeatures
    val: PairFeatures
    prototypes: PairFeatures | None
    table: CaptionTable


def load_features(
    data: str, config: Config, model: DualEncoder, transform: ImageTransform, tokenizer: Tokenizer, allow_missing: bool
) -> TrainingFeatures:
    """Read the captions, pass every picture and caption through the frozen backbones once, drop what is unreadable.

    Errors: `MiniClipError` when more than 5 % of the rows are lost (unless `allow_missing`), or a split is missing.
    """
    table = read_captions(data, seed=config.data.seed).split("train", "val")
    if not table.captions:
        raise MiniClipError(f"{data} has no captions to train on; see README for the caption formats")
    check_skipped(table, allow_missing)
    vision = image_features(model.vision, transform, table.image_paths)
    kept_rows = np.asarray([row for row in range(len(table.image_paths)) if row not in vision.skipped])
    table = table.without(vision.skipped)
    print("\n".join([*table.skipped_lines(), table.summary()]))
    check_skipped(table, allow_missing)
    texts = text_features(model.text, tokenizer, table.captions)
    all_images = torch.from_numpy(vision.values[kept_rows].astype(np.float32))
    all_texts = torch.from_numpy(np.asarray(texts.values, dtype=np.float32))

    def pairs(split: str) -> PairFeatures:
        image_rows = np.flatnonzero([s == split for s in table.splits])
        text_rows = np.flatnonzero(np.isin(table.image_of_caption, image_rows))
        image_of_caption = np.searchsorted(image_rows, table.image_of_caption[text_rows])
        return PairFeatures(all_images[image_rows], all_texts[text_rows], torch.from_numpy(image_of_caption))

    prototypes = prototype_features(config, model, tokenizer) if config.data.prototypes else None
    return TrainingFeatures(pairs("train"), pairs("val"), prototypes, table)


def prototype_features(config: Config, model: DualEncoder, tokenizer: Tokenizer) -> PairFeatures:
    """The ImageNet classifier's weight rows as pictures, their class names as captions.

    A row of the classifier points where its class lies in the backbone's own feature space, so a thousand concepts come
    for free. Rows have another scale than features, so they are standardised among themselves, as pictures are.
    """
    weights, names = class_prototypes(config.model.vision)
    rows = torch.from_numpy(weights)
    standardised = (rows - rows.mean(dim=0)) / rows.std(dim=0).clamp_min(1e-4)
    captions = [f"a photo of {_article(name)} {name}" for name in names]
    texts = text_features(model.text, tokenizer, captions)
    return PairFeatures(standardised, torch.from_numpy(np.asarray(texts.values, np.float32)), torch.arange(len(names)))


def _article(noun: str) -> str:
    return "an" if noun[:1].lower() in "aeiou" else "a"
