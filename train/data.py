"""The data of a run: the caption table, and the two tower inputs that turn its rows into features.

In: `--data` and the config. Out: `TrainingData` without unreadable images, and with prototypes if the config asks for
them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from miniclip.data.caption_table import CaptionTable, check_skipped
from miniclip.data.captions import read_captions, read_sources
from miniclip.data.prefetch import prefetch
from miniclip.data.progress import ProgressBar
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.inference.tokenizer import Tokenizer
from miniclip.models.config import Config
from miniclip.models.device import Device, cpu_device
from miniclip.models.dual_encoder import DualEncoder
from miniclip.models.pretrained import class_prototypes

from .caption_variants import Variants, article, make_variants
from .distributed import say
from .param_groups import trained_blocks
from .sources import HELD_OUT, UNCAPTIONED, Source, draw, parse_sources
from .tokens import Tokens
from .tower_inputs import Images, Texts
from .word_loss import Words, words_of

MIN_SPLIT = 4  # images; a seeded split of 4 has 2, 1 and 1
MIN_TRAINING = 2  # images; a single one has neither a standard deviation nor a negative
ENOUGH = (
    f"training needs at least {MIN_TRAINING} images and validation 1, which takes "
    f"{MIN_SPLIT} images if splits are drawn by seed; add images, or assign their splits yourself"
)


@dataclass(frozen=True)
class TrainingData:
    """Training and validation images with their captions; `table` holds only images that could be read.

    `texts` has the captions of the table first, then those of the prototypes, the caption variants and the words.
    """

    table: CaptionTable
    images: Images
    texts: Texts
    prototypes: Tensor | None  # (K, d_vision) standardised image features; their class names are in `texts`
    variants: Variants
    words: Words | None
    all_texts: list[str]  # the text of each row of `texts`
    sources: tuple[Source, ...]
    source_of_image: np.ndarray  # (N_images,) index into `sources`

    def image_rows(self, split: str, source: int | None = None) -> np.ndarray:
        """Rows of the split's images; with `source`, only rows of that source."""
        chosen = np.array([own == split for own in self.table.splits], dtype=bool)
        return np.flatnonzero(chosen if source is None else chosen & (self.source_of_image == source))

    def text_rows(self, split: str) -> np.ndarray:
        """Rows of the split's captions."""
        return np.flatnonzero(np.isin(self.table.image_of_caption, self.image_rows(split)))

    def captions_of_images(self, image_rows: np.ndarray) -> np.ndarray:
        """Rows of the captions of these images."""
        return np.flatnonzero(np.isin(self.table.image_of_caption, image_rows))

    def drawn_images(self, generator: np.random.Generator) -> np.ndarray:
        """Rows of the training images of one epoch, drawn from each source according to its weight."""
        rows = self.image_rows("train")
        return draw(rows, self.source_of_image[rows], [source.weight for source in self.sources], generator)

    def drawn_texts(self, generator: np.random.Generator) -> np.ndarray:
        """Rows of the training captions of one epoch, drawn from each source according to its weight."""
        rows = self.text_rows("train")
        source_of_text = self.source_of_image[self.table.image_of_caption[rows]]
        return draw(rows, source_of_text, [source.weight for source in self.sources], generator)

    def digest(self) -> str:
        """SHA-256 of the images' file names, splits and captions; it does not depend on their folder."""
        table = self.table
        names = [path.name for path in table.image_paths]
        parts = [names, list(table.splits), list(table.captions), table.image_of_caption.tolist()]
        if any(source.weight != 1 for source in self.sources):
            parts.append([[source.name, source.weight] for source in self.sources])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def load_data(
    values: Sequence[str],
    config: Config,
    model: DualEncoder,
    transform: ImageTransform,
    tokenizer: Tokenizer,
    allow_missing: bool,
    device: Device | None = None,
    image_roots: Sequence[Path] | None = None,
) -> TrainingData:
    """Read and prepare the training and validation splits of every source.

    `values` and `image_roots` are the values of --data and --image-root. In all sources except the first, validation
    images are in the split `HELD_OUT`. An image that the first source holds out is removed from the other sources, and
    the number of such images is printed.
    Errors: `MiniClipError` if more than 5 % of the rows are lost (unless `allow_missing`), a split is missing, or the
    weights leave less than two images for an epoch.
    """
    sources = parse_sources(values)
    first, *others = read_sources([source.spec for source in sources], config.data.seed, image_roots)
    if len(first.image_paths) < MIN_SPLIT and "val" not in first.splits:
        raise MiniClipError(f"{sources[0].spec} has {len(first.image_paths)} images and no validation split; {ENOUGH}")
    tables = [first.split("train", "val"), *(_with_held_out(other) for other in others)]
    for source, table in zip(sources, tables, strict=True):
        if not table.captions:
            raise MiniClipError(f"{source.spec} has no captions to train on; see README for the caption formats")
        check_skipped(table, allow_missing)
    for place, source in enumerate(sources[1:], start=1):
        apart = tables[place].apart_from(first)
        if left_out := len(tables[place].image_paths) - len(apart.image_paths):
            say(f"{source.spec}: {left_out:,} images not used for training, because {sources[0].spec} holds them out")
        tables[place] = apart
    if config.train.teacher_images:
        tables.append(read_uncaptioned(config.train.teacher_images).apart_from(first))
    table = reduce(CaptionTable.and_train, tables)
    source_of_image = np.repeat(np.arange(len(tables)), [len(own.image_paths) for own in tables])
    data = prepare(table, config, model, transform, tokenizer, allow_missing, device, sources, source_of_image)
    if (drawn := len(data.drawn_images(np.random.default_rng(0)))) < MIN_TRAINING:
        raise MiniClipError(
            f"--data: with these weights an epoch has {drawn} training images, but needs at least {MIN_TRAINING}; "
            "raise the weights"
        )
    return data


def read_uncaptioned(folder: str) -> CaptionTable:
    """The images of a folder, all in the split `UNCAPTIONED`; captions that it holds are ignored."""
    return without_captions(read_captions(folder).image_paths)


def without_captions(paths: Sequence[Path]) -> CaptionTable:
    """A table of images that only a teacher describes."""
    return CaptionTable(list(paths), [UNCAPTIONED] * len(paths), [], np.zeros(0, dtype=np.int64))


def _with_held_out(table: CaptionTable) -> CaptionTable:
    """The training split, and the validation split renamed to `HELD_OUT`."""
    chosen = table.split("train", "val") if "val" in table.splits else table.split("train")
    return replace(chosen, splits=[HELD_OUT if split == "val" else split for split in chosen.splits])


def prepare(
    table: CaptionTable,
    config: Config,
    model: DualEncoder,
    transform: ImageTransform,
    tokenizer: Tokenizer,
    allow_missing: bool = False,
    device: Device | None = None,
    sources: Sequence[Source] = (Source("data"),),
    source_of_image: np.ndarray | None = None,
) -> TrainingData:
    """Compute the features of frozen towers and drop unreadable images.

    The model is on `device`, by default the CPU. Without `source_of_image`, all images belong to one source.
    """
    device = device or cpu_device()
    if source_of_image is None:
        source_of_image = np.zeros(len(table.image_paths), dtype=np.int64)
    vision_blocks, text_blocks = trained_blocks(config.train)
    views, seed = config.train.views, config.train.seed
    images = Images(model.vision, vision_blocks, transform, table.image_paths, views, seed, device)
    skipped = images.skipped if images.checked else unreadable_images(table, transform)
    if skipped:
        table = table.without(skipped)
        kept = np.asarray([row for row in range(len(images.paths)) if row not in skipped], dtype=np.int64)
        images.keep(kept)
        source_of_image = source_of_image[kept]
    say("\n".join([*table.skipped_lines(), table.summary()]))
    check_skipped(table, allow_missing)
    train, val = table.splits.count("train"), table.splits.count("val")
    if train < MIN_TRAINING or val < 1:
        raise MiniClipError(f"only {train} training and {val} validation images can be read; {ENOUGH}")

    captions, prototypes = list(table.captions), None
    if config.data.prototypes:
        prototypes, names = prototype_features(config)
        prototypes = device.put(prototypes)
        captions += names if config.data.name_templates else [f"a photo of {article(name)} {name}" for name in names]
    variants = make_variants(captions, config.data)
    captions += variants.texts
    words = words_of(table, source_of_image, len(captions)) if config.train.word_weight else None
    captions += words.texts if words is not None else []
    texts = Texts(model.text, text_blocks, Tokens(tokenizer, captions, model.text.exact_length), device)
    return TrainingData(table, images, texts, prototypes, variants, words, captions, tuple(sources), source_of_image)


def unreadable_images(table: CaptionTable, transform: ImageTransform) -> dict[int, str]:
    """Rows of images that cannot be read, with the reason. Checking them first saves hours of training."""
    loaded = ProgressBar(
        prefetch(table.image_paths, transform.load, ahead=64),
        total=len(table.image_paths),
        desc="checking images",
        unit="image",
        leave=False,
    )
    return {row: str(result) for row, result in loaded if isinstance(result, MiniClipError)}


def prototype_features(config: Config) -> tuple[Tensor, list[str]]:
    """The weight rows of the ImageNet classifier, used as image features (K, d), and their class names.

    A row of the classifier points towards its class in the backbone's feature space, so it adds a concept without an
    image. Rows and features differ in scale, so the rows are standardised separately, in the same way as images.
    """
    weights, names = class_prototypes(config.model.vision)
    rows = torch.from_numpy(weights)
    return (rows - rows.mean(dim=0)) / rows.std(dim=0).clamp_min(1e-4), names
