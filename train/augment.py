"""Views of a training image: the image itself, or a random crop of it, perhaps mirrored. In PIL, before resizing.

In: path and the number of the view. Out: `pixel_values`. The same number gives the same view of a file name, so that
what is computed from it can be cached.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from miniclip.data.images import ImageSource, open_image
from miniclip.data.transform import ImageTransform

AREA, STRETCH = (0.5, 1.0), 0.2  # share of the image that a crop keeps, and log of how far its shape may change


@dataclass(frozen=True)
class View:
    """How images are loaded; number 0 is the image itself, as the finished model will see it."""

    transform: ImageTransform
    number: int = 0
    seed: int = 0

    def load(self, source: ImageSource) -> np.ndarray:
        """Path -> `pixel_values` (3, H, W) float32; `MiniClipError` when it cannot be read."""
        if self.number == 0:
            return self.transform.load(source)
        name = source if isinstance(source, bytes) else Path(source).name.encode("utf-8", "surrogateescape")
        generator = np.random.default_rng([self.seed, self.number, zlib.crc32(name)])
        return self.transform(random_crop(open_image(source, self.transform.min_size_px), generator))


def random_crop(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A random part of the image, mirrored half of the time (C. Szegedy et al., CVPR 2015, section 6, but milder:
    captions speak of the whole scene)."""
    width, height = image.size
    scale, shape = np.sqrt(generator.uniform(*AREA)), np.exp(generator.uniform(-STRETCH, STRETCH))
    crop_width, crop_height = min(width, width * scale * shape), min(height, height * scale / shape)
    left, top = generator.uniform(0, width - crop_width), generator.uniform(0, height - crop_height)
    image = image.crop((round(left), round(top), round(left + crop_width), round(top + crop_height)))
    return ImageOps.mirror(image) if generator.random() < 0.5 else image
