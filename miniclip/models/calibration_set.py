"""The images and captions that a run keeps for export, in the form of the tower's input.

Training writes them from a caption table. Export reads training images to measure activations, their captions to check
that an 8-bit tower still finds them, and `held_out`, validation images to calibrate scores. They belong to the data
set, so they stay in the run and are never part of a bundle.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from miniclip.data.caption_table import CaptionTable
from miniclip.data.images import open_image
from miniclip.data.prefetch import prefetch
from miniclip.data.progress import BAR_AFTER_S, ProgressBar
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.inference.tokenizer import Tokenizer

CALIBRATION_FILE = "calibration.npz"
IMAGES, CAPTIONS_PER_IMAGE = 256, 2
MAX_BYTES = 4_000_000_000  # 256 images at 518 pixels take 0.2 GB; a damaged archive may claim more
HELD_OUT = "held_out_"


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Images of a split and some of their captions."""

    images: np.ndarray  # (N, H, W, 3) uint8, already resized
    captions: list[str]  # N_texts
    image_of_caption: np.ndarray  # (N_texts,) row in images; ascending, unless sorted by length
    held_out: "CalibrationSet | None" = None  # images of the validation split

    @classmethod
    def choose(cls, table: CaptionTable, transform: ImageTransform) -> "CalibrationSet":
        """Take `IMAGES` of the training images, evenly over the split, and as many of the validation images."""
        train = _of_split(table.split("train"), transform)
        if not train.captions:
            raise MiniClipError("the images have no captions, and int8 is calibrated on both; name other data")
        held_out = _of_split(table.split("val"), transform) if "val" in table.splits else None
        return replace(train, held_out=held_out if held_out and held_out.captions else None)

    @classmethod
    def load(cls, folder: Path) -> "CalibrationSet | None":
        """From a run folder, or None if it has none; `MiniClipError` if the file is damaged."""
        path = folder / CALIBRATION_FILE
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if sum(entry.file_size for entry in arrays.zip.infolist()) > MAX_BYTES:
                    raise ValueError("it unpacks to more than 4 GB")

                def part(prefix: str) -> CalibrationSet:
                    own = [arrays[prefix + name] for name in ("pictures", "captions", "image_of_caption")]
                    return cls(own[0], own[1].tolist(), own[2])._checked()

                held_out = part(HELD_OUT) if f"{HELD_OUT}pictures" in arrays else None  # older runs have none
                return replace(part(""), held_out=held_out)
        except Exception as error:  # the disk, zip, zlib and numpy raise different types for a damaged file
            raise MiniClipError(f"cannot read {path}: {error}; train again, or leave int8 out") from error

    def _checked(self) -> "CalibrationSet":
        """This set; `ValueError` for arrays that export cannot use."""
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise ValueError("its images are not 8-bit RGB")
        if not self.captions or not all(isinstance(caption, str) for caption in self.captions):
            raise ValueError("its captions are not texts")
        rows = self.image_of_caption
        if rows.dtype.kind not in "iu" or rows.shape != (len(self.captions),):
            raise ValueError("its captions belong to no images")
        if rows.min() < 0 or rows.max() >= len(self.images):
            raise ValueError("a caption belongs to a missing image")
        return self

    def save(self, path: Path) -> None:
        arrays = self._arrays("") | (self.held_out._arrays(HELD_OUT) if self.held_out else {})
        with path.open("wb") as file:  # np.savez would add a suffix to the name
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def _arrays(self, prefix: str) -> dict[str, np.ndarray]:
        captions = np.asarray(self.captions, dtype=np.str_)
        values = {"pictures": self.images, "captions": captions, "image_of_caption": self.image_of_caption}
        return {prefix + name: value for name, value in values.items()}

    def by_length(self, tokenizer: Tokenizer) -> "CalibrationSet":
        """Sort captions by length, as encoders batch them, because padding would stretch 8-bit scales."""
        order = np.argsort([len(own) for own in tokenizer.ids(self.captions)], kind="stable")
        captions = [self.captions[row] for row in order]
        return replace(self, captions=captions, image_of_caption=self.image_of_caption[order])

    def seen_among(self, image_paths: Sequence[Path], transform: ImageTransform) -> int:
        """The number of these files that are among the kept training images of the run.

        A split by seed changes when images are added: `test` then also contains training images.
        """

        def digest(path: Path) -> bytes:
            return hashlib.sha256(_fitted(path, transform).tobytes()).digest()

        kept = {hashlib.sha256(image.tobytes()).digest() for image in self.images}
        return len(kept & {own for _, own in prefetch(image_paths, digest, ahead=64) if isinstance(own, bytes)})

    def pixel_values(self, transform: ImageTransform) -> np.ndarray:
        """(N, 3, H, W) float32, the input of the vision tower."""
        return np.stack([transform(Image.fromarray(image)) for image in self.images])


def _of_split(split: CaptionTable, transform: ImageTransform) -> CalibrationSet:
    rows = np.linspace(0, len(split.image_paths) - 1, min(IMAGES, len(split.image_paths)), dtype=int)
    images: list[np.ndarray] = []
    captions: list[list[str]] = []
    problems: list[str] = []
    for row in ProgressBar(rows, desc="keeping images for calibration", unit="image", leave=False, delay=BAR_AFTER_S):
        path = split.image_paths[row]
        try:
            images.append(_fitted(path, transform))
        except MiniClipError as error:  # training skipped unreadable images; other data may contain some
            problems.append(f"{path}: {error}")
            continue
        captions.append(list(split.captions_of(row)[:CAPTIONS_PER_IMAGE]))
    if not images:
        raise MiniClipError(f"none of {len(problems)} images could be read; the first: {problems[0]}")
    for problem in problems:
        print(f"skipping {problem}")
    return CalibrationSet(
        np.stack(images),
        [caption for group in captions for caption in group],
        np.repeat(np.arange(len(captions)), [len(group) for group in captions]),
    )


def _fitted(path: Path, transform: ImageTransform) -> np.ndarray:
    return np.asarray(transform.fit(open_image(path, transform.min_size_px)))
