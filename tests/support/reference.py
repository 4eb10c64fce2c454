"""Embeddings that the shipped bundle gave at its release, for a few drawn images and texts.

python -m tests.support.reference     writes tests/data/reference.npz, after a new bundle is released
"""

import numpy as np
from PIL import Image

from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.cli import REPOSITORY
from tests.support.drawing import COLOURS, SHAPES, draw_image

BUNDLE = REPOSITORY / "models/miniclip-s"
FILE = REPOSITORY / "tests/data/reference.npz"
TEXTS = ["a red circle", "two dogs run on the beach", "Ein Hund", "", "a photo of a " + "very " * 40 + "small cat"]


def images() -> list[Image.Image]:
    """Shapes, and a cloud of noise."""
    shapes = [draw_image(colour, shape, (300, 200)) for colour, shape in zip(COLOURS, SHAPES, strict=False)]
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return [*shapes, Image.fromarray(noise).resize((240, 240), Image.Resampling.BICUBIC)]


def embed() -> dict[str, np.ndarray]:
    """`image_embeds (4, D)` and `text_embeds (5, D)` of the current bundle."""
    encoders = OnnxEncoders(Bundle.open(BUNDLE), "cpu", threads=1)
    pixel_values = np.stack([encoders.transform(image) for image in images()])
    return {"image_embeds": encoders.embed_pixels(pixel_values), "text_embeds": encoders.encode_texts(TEXTS)}


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **{name: value.astype(np.float16) for name, value in embed().items()})
