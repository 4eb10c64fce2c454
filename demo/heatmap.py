"""Occlusion heat map (Zeiler and Fergus 2014, section 4.2): how much the similarity drops when a region is hidden.

In: an image, words, encoders. Out: a heat map over the part of the image that the vision tower sees. It needs only
embeddings, so it works with every bundle.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from miniclip.data.images import ImageSource, open_image
from miniclip.data.transform import ImageTransform
from miniclip.inference.encoders import Encoders

GRID = 8  # cells per edge; each window hides 2 x 2 cells, so neighbours overlap
MIN_DROP = 0.01  # of the cosine similarity; a smaller one is noise
HEAT_PX = 160
HOT, WARM = np.array([220, 38, 38]), np.array([250, 204, 21])


@dataclass(frozen=True)
class Heatmap:
    """Colours to lay over an image. `box` is left, top, width and height as shares of the image's size."""

    png_base64: str
    box: tuple[float, float, float, float]
    largest_drop: float  # in similarity, when the most important window is hidden
    matters: bool  # whether that drop is more than noise


def heat_map(source: ImageSource, words: str, encoders: Encoders) -> Heatmap:
    """The heat map of words on an image; `MiniClipError` if the image cannot be read."""
    transform = encoders.transform
    image = open_image(source, transform.min_size_px)
    drops = similarity_drops(transform(image), encoders.encode_texts([words])[0], encoders)
    largest = float(drops.max())
    return Heatmap(_png(drops), seen_box(image.size, transform), largest, largest >= MIN_DROP)


def similarity_drops(pixel_values: np.ndarray, text_embed: np.ndarray, encoders: Encoders) -> np.ndarray:
    """pixel_values (3, H, W), text_embed (D,) -> (GRID, GRID): the mean loss of similarity when a cell is hidden.

    A hidden cell has the mean colour, which is zero after normalisation. The image and its windows are one batch.
    """
    edges_y, edges_x = (np.linspace(0, edge, GRID + 1).round().astype(int) for edge in pixel_values.shape[1:])
    places = [(row, column) for row in range(GRID - 1) for column in range(GRID - 1)]
    batch = np.repeat(pixel_values[None], len(places) + 1, axis=0)
    for hidden, (row, column) in zip(batch[1:], places, strict=True):
        hidden[:, edges_y[row] : edges_y[row + 2], edges_x[column] : edges_x[column + 2]] = 0
    similarity = encoders.embed_pixels(batch) @ text_embed  # (1 + windows,)
    total, windows = np.zeros((GRID, GRID)), np.zeros((GRID, GRID))
    for drop, (row, column) in zip(similarity[0] - similarity[1:], places, strict=True):
        total[row : row + 2, column : column + 2] += drop
        windows[row : row + 2, column : column + 2] += 1
    return np.asarray(total / windows)


def seen_box(size: tuple[int, int], transform: ImageTransform) -> tuple[float, float, float, float]:
    """The part of an image of `size` (width, height) that the tower sees: the whole image, or its centre crop."""
    if transform.resize_shortest_px is None:
        return 0.0, 0.0, 1.0, 1.0
    seen = min(size) / transform.resize_shortest_px
    width, height = min(1.0, transform.width_px * seen / size[0]), min(1.0, transform.height_px * seen / size[1])
    return (1 - width) / 2, (1 - height) / 2, width, height


def _png(drops: np.ndarray) -> str:
    """(GRID, GRID) drops -> a smooth image from transparent through yellow to red, as PNG in base64."""
    share = np.clip(drops / max(float(drops.max()), 1e-6), 0, 1)
    smooth = Image.fromarray((255 * share).astype(np.uint8)).resize((HEAT_PX, HEAT_PX), Image.Resampling.BICUBIC)
    heat = np.asarray(smooth, dtype=np.float32)[..., None] / 255  # (HEAT_PX, HEAT_PX, 1)
    colour = WARM * (1 - heat) + HOT * heat
    rgba = np.concatenate([colour, 215 * np.clip(heat * 1.4 - 0.25, 0, 1)], axis=2).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rgba).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
