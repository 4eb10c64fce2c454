"""Decoded images in memory, so that a GPU does not wait for JPEG files; the GPU makes random crops.

In: paths and the transform. Out: `pixel_values (B, 3, H, W)` of any rows and view, on the device. Every image is
decoded once, to 8 bits, at the size that the finished model sees. For random views, a second copy is resized to a
slightly larger square. A view is the same crop as in `train.augment`, resized with Pillow's filter, which is one matrix
product along each axis. If the images do not fit into memory, threads read them from the disk, one batch ahead.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from miniclip.cpu import thread_count
from miniclip.data.images import open_image
from miniclip.data.prefetch import prefetch
from miniclip.data.progress import ProgressBar
from miniclip.data.transform import ImageTransform
from miniclip.errors import MiniClipError
from miniclip.models.device import Device

from .augment import Box, View

WIDE = 1.25  # size of the larger copy, relative to the tower's input; crops keep at least half of the area
MAX_HOST_SHARE = 0.5  # of the machine's memory
CUBIC = -0.5  # Pillow's bicubic (R. Keys, 1981)


@dataclass(frozen=True)
class DecodedImages:
    """Images on the device or in main memory: `exact (N, 3, H, W)` uint8, and for random views `wide`.

    `wide` is (N, 3, 1.25 H, 1.25 W) uint8, with the size in pixels `(N, 2)` of each file. `skipped` holds the rows that
    could not be read.
    """

    paths: Sequence[Path]
    transform: ImageTransform
    seed: int
    device: Device
    exact: Tensor
    wide: Tensor | None
    sizes: np.ndarray
    skipped: dict[int, str]

    def pixel_values(self, rows: np.ndarray, view: int) -> Tensor:
        """(B, 3, H, W) float32 of these rows; view 0 is the image itself."""
        if view == 0 or self.wide is None:
            return self._normalised(self._rows(self.exact, rows).float())
        boxes, mirrored = self._boxes(rows, view)  # (B, 4), (B,)
        return self._normalised(resized(self._rows(self.wide, rows), self.device.put(boxes), self._size, mirrored))

    @property
    def _size(self) -> tuple[int, int]:
        return self.transform.height_px, self.transform.width_px

    def _rows(self, images: Tensor, rows: np.ndarray) -> Tensor:
        index = torch.from_numpy(rows)
        if images.device.type == "cpu":
            return self.device.put(images[index])
        return images[self.device.put(index)]

    def _normalised(self, pixels: Tensor) -> Tensor:
        scale, offset = (self.device.put(part) for part in self.transform.affine())
        return pixels * scale + offset

    def _boxes(self, rows: np.ndarray, view: int) -> tuple[np.ndarray, Tensor]:
        """The box of each view in shares of the image (left, top, right, bottom), and whether it is mirrored."""
        boxes, mirrored = np.empty((len(rows), 4), dtype=np.float32), np.empty(len(rows), dtype=bool)
        for place, row in enumerate(rows):
            box = View(self.transform, view, self.seed).box(self.paths[row])
            boxes[place], mirrored[place] = self._kept_by_transform(box, *self.sizes[row]), box.mirrored
        return boxes, self.device.put(mirrored)

    def _kept_by_transform(self, box: Box, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a crop that remains after the transform's centre crop."""
        if self.transform.resize_shortest_px is None:
            return box.left, box.top, box.right, box.bottom
        kept_width, kept_height = (box.right - box.left) * width, (box.bottom - box.top) * height
        pixel = min(kept_width, kept_height) / self.transform.resize_shortest_px
        half_width = min(kept_width, self.transform.width_px * pixel) / width / 2
        half_height = min(kept_height, self.transform.height_px * pixel) / height / 2
        x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        return x - half_width, y - half_height, x + half_width, y + half_height


def decode(
    paths: Sequence[Path], transform: ImageTransform, views: int, seed: int, device: Device
) -> DecodedImages | None:
    """Read every image once; None if neither the device nor main memory has enough space."""
    size = (3, transform.height_px, transform.width_px)
    wide_size = (3, round(WIDE * transform.height_px), round(WIDE * transform.width_px))
    needed = len(paths) * (np.prod(size) + (np.prod(wide_size) if views > 1 else 0))
    if device.has_room_for(int(needed)):
        place = device.torch_device
    elif needed <= MAX_HOST_SHARE * _host_bytes():
        place = torch.device("cpu")
    else:
        return None
    exact = torch.zeros(len(paths), *size, dtype=torch.uint8, device=place)
    wide = torch.zeros(len(paths), *wide_size, dtype=torch.uint8, device=place) if views > 1 else None
    sizes, skipped = np.ones((len(paths), 2), dtype=np.int64), {}

    def load(path: Path) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        image = open_image(path, max(transform.min_size_px, *wide_size[1:]))
        larger = None
        if views > 1:
            larger = _channels_first(image.resize(wide_size[:0:-1], transform.resample, reducing_gap=2.0))
        return _channels_first(transform.fit(image)), larger, image.size

    workers = thread_count()
    loaded = prefetch(paths, load, ahead=8 * workers, workers=workers)
    for row, result in ProgressBar(loaded, total=len(paths), desc="decoding images", unit="image", leave=False):
        if isinstance(result, MiniClipError):
            skipped[row] = str(result)
            continue
        exact[row], larger, sizes[row] = result
        if wide is not None and larger is not None:
            wide[row] = larger
    return DecodedImages(paths, transform, seed, device, exact, wide, sizes, skipped)


def resized(images: Tensor, boxes: Tensor, size: tuple[int, int], mirrored: Tensor) -> Tensor:
    """Crop and resize: images (B, 3, H, W) uint8, boxes (B, 4) in shares -> (B, 3, *size) float32 in [0, 255].

    Equal to Pillow's bicubic `resize(size, box=...)`, except that Pillow rounds between the two axes.
    """
    height, width = size
    across = weights(boxes[:, 0] * images.shape[3], boxes[:, 2] * images.shape[3], width, images.shape[3])
    down = weights(boxes[:, 1] * images.shape[2], boxes[:, 3] * images.shape[2], height, images.shape[2])
    across = torch.where(mirrored[:, None, None], across.flip(1), across)
    return (down[:, None] @ images.float() @ across[:, None].transpose(2, 3)).clamp(0, 255).round()


def weights(start: Tensor, end: Tensor, size: int, length: int) -> Tensor:
    """The weights (B, size, length) of the `length` input pixels of a line in each of the `size` output pixels."""
    scale = (end - start)[:, None, None] / size  # input pixels per output pixel
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[None, :, None] + 0.5) * scale
    at = torch.arange(length, device=start.device)[None, None, :] + 0.5
    x = ((at - centre) / scale.clamp_min(1)).abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = CUBIC * (((x - 5) * x + 8) * x - 4)
    found = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return found / found.sum(dim=2, keepdim=True)


class Prefetch:
    """Decodes images in threads while the device computes. `begin` drops images that it does not name."""

    def __init__(self, load: Callable[[tuple[int, int]], np.ndarray]) -> None:
        self._load = load
        self._pool = ThreadPoolExecutor(thread_count())  # starts no thread before the first request
        self._begun: dict[tuple[int, int], Future[np.ndarray]] = {}

    def begin(self, keys: Sequence[tuple[int, int]]) -> None:
        """Decode only these (row, view) from now on, in this order."""
        kept = {key: self._begun.pop(key, None) for key in keys}
        for future in self._begun.values():
            future.cancel()
        self._begun = {key: found or self._pool.submit(self._load, key) for key, found in kept.items()}

    def take(self, keys: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """The results of `load` for these (row, view); decoding starts now if it has not begun."""
        futures = [self._begun.get(key) or self._pool.submit(self._load, key) for key in keys]
        return [future.result() for future in futures]


def _channels_first(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def _host_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
