"""The table that all caption formats are read into: images, their captions, their splits, and skipped rows.

In: rows of `miniclip.data.captions`. Out: `CaptionTable`. An image and all its captions are in the same split.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miniclip.data.splits import SPLITS, normalise_split
from miniclip.errors import MiniClipError


@dataclass(frozen=True)
class Skipped:
    """A skipped file or row."""

    name: str
    reason: str
    rows: int = 1  # caption rows that are lost with it
    split: str | None = ""  # None: unknown, so every split counts it


@dataclass(frozen=True, eq=False)
class CaptionTable:
    """Images and their captions, and what was skipped."""

    image_paths: list[Path]  # N_images, existing files
    splits: list[str]  # N_images: "train", "val", "test", or "" for an image that no official list names
    captions: list[str]  # N_texts
    image_of_caption: NDArray[np.int64]  # (N_texts,) row in image_paths, ascending
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # messages, such as the number of names in another case

    def split(self, *names: str) -> "CaptionTable":
        """The images of these splits with their captions; "all" means every image, and synonyms such as "dev" work.

        Errors: `MiniClipError` if a split is unknown or empty; the message lists the existing splits.
        """
        if any(name.strip().lower() == "all" for name in names):
            return self
        wanted = {normalise_split(name) for name in names}
        if empty := sorted(wanted - set(self.splits)):
            raise MiniClipError(f"no image is in split {empty[0]!r}; there are: {self._split_counts()}, all")
        keep = np.array([split in wanted for split in self.splits], dtype=bool)
        return self._only(keep, [skipped for skipped in self.skipped if skipped.split in {*wanted, None}])

    def without(self, image_rows: dict[int, str]) -> "CaptionTable":
        """This table without some images and their captions; `image_rows` maps their rows to reasons, for `skipped`."""
        keep = np.ones(len(self.image_paths), dtype=bool)
        keep[list(image_rows)] = False
        dropped = [
            Skipped(self.image_paths[row].name, reason, max(1, len(self.captions_of(row))), self.splits[row])
            for row, reason in image_rows.items()
        ]
        return self._only(keep, self.skipped + dropped)

    def first(self, images: int) -> "CaptionTable":
        """The first images with their captions, as a sample for measurements. The others do not count as skipped."""
        return self._only(np.arange(len(self.image_paths)) < images, [])

    def sample(self, images: int, seed: int) -> "CaptionTable":
        """A random sample of images, in their original order, with their captions; all images if there are no more."""
        rows = np.random.default_rng(seed).permutation(len(self.image_paths))[:images]
        keep = np.zeros(len(self.image_paths), dtype=bool)
        keep[rows] = True
        return self._only(keep, [])

    def and_train(self, other: "CaptionTable") -> "CaptionTable":
        """This table followed by another one, which must hold only training images and may be empty."""
        return CaptionTable(
            image_paths=self.image_paths + other.image_paths,
            splits=self.splits + other.splits,
            captions=self.captions + other.captions,
            image_of_caption=np.concatenate([self.image_of_caption, other.image_of_caption + len(self.image_paths)]),
            skipped=self.skipped + other.skipped,
            notes=self.notes + other.notes,
        )

    def apart_from(self, other: "CaptionTable") -> "CaptionTable":
        """This table without the files that are in val or test of another table, even by another path."""
        pairs = zip(other.image_paths, other.splits, strict=True)
        held_out = {path.resolve() for path, split in pairs if split in ("val", "test")}
        keep = np.array([path.resolve() not in held_out for path in self.image_paths], dtype=bool)
        return self._only(keep, self.skipped)

    def captions_of(self, image_row: int) -> list[str]:
        """All captions of one image."""
        start, end = np.searchsorted(self.image_of_caption, [image_row, image_row + 1])
        return self.captions[start:end]

    def summary(self) -> str:
        """A line of counts, then a line of reasons if something was skipped, then the notes."""
        text = f"{len(self.image_paths):,} images, {len(self.captions):,} captions: {self._split_counts()}"
        if self.skipped:
            reasons = Counter(skipped.reason for skipped in self.skipped).most_common()
            shown = [f"{count:,} {reason}" for reason, count in reasons[:3]]
            rest = sum(count for _, count in reasons[3:])
            text += "\nskipped: " + ", ".join(shown + ([f"{rest:,} for other reasons"] if rest else []))
        return "\n".join([text, *self.notes])

    def skipped_lines(self, most: int = 20) -> list[str]:
        """`skipping NAME: reason` for each skipped file or row, at most `most` lines, then the number of others."""
        lines = [f"skipping {entry.name}: {entry.reason}" for entry in self.skipped[:most]]
        return lines + ([f"... and {len(self.skipped) - most:,} more"] if len(self.skipped) > most else [])

    def _split_counts(self) -> str:
        counts = Counter(self.splits)
        splits = dict.fromkeys((*SPLITS, *sorted(counts)))
        return ", ".join(f"{split or 'in no split'} {counts[split]:,}" for split in splits if counts[split])

    def _only(self, keep: NDArray[np.bool_], skipped: list[Skipped]) -> "CaptionTable":
        images, texts = np.flatnonzero(keep), np.flatnonzero(keep[self.image_of_caption])
        new_row = np.cumsum(keep, dtype=np.int64) - 1
        return CaptionTable(
            image_paths=[self.image_paths[row] for row in images],
            splits=[self.splits[row] for row in images],
            captions=[self.captions[row] for row in texts],
            image_of_caption=new_row[self.image_of_caption[texts]],
            skipped=skipped,
            notes=self.notes,
        )


def check_skipped(table: CaptionTable, allow_missing: bool, limit: float = 0.05) -> None:
    """Refuse a table if more than the share `limit` of its rows was skipped, unless `allow_missing`.

    Rows are captions, or images if there are no captions. Errors: `MiniClipError` with the first reasons.
    """
    skipped = sum(entry.rows for entry in table.skipped)
    total = skipped + (len(table.captions) or len(table.image_paths))
    if allow_missing or skipped <= limit * total:
        return
    first = [f"{entry.name} ({entry.reason})" for entry in table.skipped if entry.rows][:3]
    raise MiniClipError(
        f"{skipped:,} of {total:,} rows were skipped, more than {limit:.0%}: {', '.join(first)}; "
        "fix the data, or continue without them with --allow-missing"
    )
