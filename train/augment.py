"""Views of a training image: the image itself, or a random crop that may be mirrored. Pillow crops before resizing.

In: a path and the number of the view. Out: `pixel_values`. The same file name and number always give the same view, so
that its features can be cached.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from miniclip.data.images import ImageSource, open_image
from miniclip.data.transform import ImageTransform

AREA, STRETCH = (0.5, 1.0), 0.2  # share of the image in a crop; log of the largest change of its aspect ratio


@dataclass(frozen=True)
class View:
    """Loads one view of each image. View 0 is the image itself, as the finished model will see it."""

    transform: ImageTransform
    number: int = 0
    seed: int = 0

    def load(self, source: ImageSource) -> np.ndarray:
        """Path -> `pixel_values` (3, H, W) float32; `MiniClipError` when it cannot be read."""
        if self.number == 0:
            return self.transform.load(source)
        return self.transform(self.box(source).cut(open_image(source, self.transform.min_size_px)))

    def box(self, source: ImageSource) -> "Box":
        """The part of the image in this view; the same for every file of that name."""
        name = source if isinstance(source, bytes) else Path(source).name.encode("utf-8", "surrogateescape")
        return random_box(np.random.default_rng([self.seed, self.number, zlib.crc32(name)]))


@dataclass(frozen=True)
class Box:
    """A part of an image, in shares of its width and height; it may be mirrored."""

    left: float
    top: float
    right: float
    bottom: float
    mirrored: bool

    def cut(self, image: Image.Image) -> Image.Image:
        """That part of the image."""
        width, height = image.size
        left, top, right, bottom = self.left * width, self.top * height, self.right * width, self.bottom * height
        image = image.crop((round(left), round(top), round(right), round(bottom)))
        return ImageOps.mirror(image) if self.mirrored else image


def random_box(generator: np.random.Generator) -> Box:
    """A random part of an image, mirrored half of the time (C. Szegedy et al., CVPR 2015, section 6).

    It is larger than in the paper, because captions describe the whole scene.
    """
    scale, shape = np.sqrt(generator.uniform(*AREA)), np.exp(generator.uniform(-STRETCH, STRETCH))
    width, height = min(1.0, scale * shape), min(1.0, scale / shape)
    left, top = generator.uniform(0, 1 - width), generator.uniform(0, 1 - height)
    return Box(left, top, left + width, top + height, bool(generator.random() < 0.5))
