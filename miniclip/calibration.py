"""What a run keeps of its training data for int8 export: some pictures as the tower sees them, and their captions.

In, when training: a caption table. Out, when exporting: pictures to measure activations on, and captions that tell
whether an 8-bit tower still finds them. They are training data, so they stay in the run and go into no bundle.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from miniclip.caption_table import CaptionTable
from miniclip.errors import MiniClipError
from miniclip.images import ImageTransform, open_image

CALIBRATION_FILE = "calibration.npz"
PICTURES, CAPTIONS_A_PICTURE = 256, 2


@dataclass(frozen=True, eq=False)
class Calibration:
    """Training pictures and some of their captions."""

    pictures: np.ndarray  # (N, H, W, 3) uint8, resized already
    captions: list[str]  # N_texts
    image_of_caption: np.ndarray  # (N_texts,) row in pictures, ascending

    @classmethod
    def choose(cls, table: CaptionTable, transform: ImageTransform) -> "Calibration":
        """Take `PICTURES` of the training pictures, evenly over the split."""
        train = table.split("train")
        rows = np.linspace(0, len(train.image_paths) - 1, min(PICTURES, len(train.image_paths)), dtype=int)
        pictures = [_picture(train.image_paths[row], transform) for row in rows]
        captions = [train.captions_of(row)[:CAPTIONS_A_PICTURE] for row in rows]
        if not any(captions):
            raise MiniClipError("the pictures have no captions, and int8 is calibrated on both; name other data")
        return cls(
            np.stack(pictures),
            [caption for group in captions for caption in group],
            np.repeat(np.arange(len(rows)), [len(group) for group in captions]),
        )

    @classmethod
    def load(cls, folder: Path) -> "Calibration | None":
        """From a run folder, or None where there is none; `MiniClipError` when the file is damaged."""
        path = folder / CALIBRATION_FILE
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["pictures"], arrays["captions"].tolist(), arrays["image_of_caption"])
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise MiniClipError(f"cannot read {path}: {error}; train again, or leave int8 out") from None

    def save(self, path: Path) -> None:
        with path.open("wb") as file:  # np.savez would add a suffix to the name
            np.savez(
                file,
                pictures=self.pictures,
                captions=np.asarray(self.captions, dtype=np.str_),
                image_of_caption=self.image_of_caption,
            )

    def pixel_values(self, transform: ImageTransform) -> np.ndarray:
        """(N, 3, H, W) float32, as the vision tower takes them."""
        return np.stack([transform(Image.fromarray(picture)) for picture in self.pictures])


def _picture(path: Path, transform: ImageTransform) -> np.ndarray:
    try:
        return np.asarray(transform.fit(open_image(path, transform.min_size_px)))
    except MiniClipError as error:
        raise MiniClipError(f"{path}: {error}") from None
