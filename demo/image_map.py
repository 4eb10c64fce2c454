"""All images of a gallery on a plane, similar images near each other.

In: `image_embeds (N, D)`. Out: a point in [-1, 1] x [-1, 1] for each image, by PCA, or by UMAP if the extra `map` is
installed, and names for groups of similar images. The map shows an even sample of a very large gallery.
"""

import base64
import threading
from dataclasses import asdict
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np

from miniclip.data.paths import printable

from .cluster_names import named_clusters
from .gallery_search import GallerySearch
from .i18n import t

MAX_POINTS = 40_000  # a browser draws this many smoothly
NEIGHBOURS = 15  # of each image, which UMAP keeps near it
MIN_FOR_UMAP = 5  # images; fewer have no neighbourhoods
MAX_GROUPS = 10  # folders with their own colour


def has_umap() -> bool:
    return find_spec("umap") is not None


def pca(image_embeds: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, 2): the two directions in which the images differ most."""
    rows, dim = image_embeds.shape
    covariance = np.cov(image_embeds, rowvar=False) if rows > 1 else np.eye(dim)
    _, directions = np.linalg.eigh(covariance)  # ascending
    return np.asarray((image_embeds - image_embeds.mean(axis=0)) @ directions[:, [-1, -2]], dtype=np.float32)


def umap(image_embeds: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, 2): neighbours stay neighbours. Many images take minutes."""
    from umap import UMAP

    if len(image_embeds) < MIN_FOR_UMAP:
        return pca(image_embeds)
    neighbours = min(NEIGHBOURS, len(image_embeds) - 1)
    layout = UMAP(n_neighbors=neighbours, n_components=2, metric="cosine", random_state=0, n_jobs=1)
    return np.asarray(layout.fit_transform(image_embeds), np.float32)


def fit_square(points: np.ndarray) -> np.ndarray:
    """(N, 2) -> (N, 2) in [-1, 1]. Far outliers move to the edge, so that the others use the whole square."""
    low, high = np.quantile(points, 0.005, axis=0), np.quantile(points, 0.995, axis=0)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-9)
    return np.asarray(np.clip((points - middle) / half, -1.15, 1.15) / 1.15, dtype=np.float32)


class ImageMap:
    """The map of one gallery, computed on the first request."""

    def __init__(self, search: GallerySearch) -> None:
        self.search = search
        self.rows = np.arange(0, len(search.index), max(1, -(-len(search.index) // MAX_POINTS)), dtype=np.int32)
        self._layouts: dict[str, tuple[np.ndarray, list[dict[str, Any]]]] = {}
        self._computing = {"pca": threading.Lock(), "umap": threading.Lock()}

    def points(self, layout: str = "pca") -> dict[str, Any]:
        """The data that the page draws. Rows, points (x and y alternately) and groups are arrays in base64."""
        groups, group_of = self._groups
        points, clusters = self._layout(layout)
        return {
            "rows": _base64(self.rows),
            "points": _base64(points),
            "clusters": clusters,
            "groups": [t("other_folders") if name is None else name or t("top_folder") for name in groups],
            "group": _base64(group_of),
            "gallery": self.search.previews.version,
            "preview": self.search.previews.address(0).rsplit("/", 1)[0],
            "all": len(self.search.index),
        }

    def _layout(self, layout: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """(P, 2) points and named clusters of a layout, computed once. Parallel requests wait for the first."""
        with self._computing[layout]:
            if layout not in self._layouts:
                embeds = self.search.index.image_embeds[self.rows]
                points = fit_square(umap(embeds) if layout == "umap" else pca(embeds))
                searcher = self.search.searcher
                names = named_clusters(points, embeds, searcher.encoders, searcher.match)
                self._layouts[layout] = points, [asdict(cluster) for cluster in names]
            return self._layouts[layout]

    def shades(self, similarity: np.ndarray) -> str:
        """similarity (N,), NaN where a filter excludes an image -> the brightness of every point, in base64.

        It is 1 for the best image, 0 up to the median, and -1 for NaN.
        """
        shown = similarity[self.rows]
        if np.isnan(shown).all():
            return _base64(np.full(len(shown), -1, dtype=np.float32))
        low, high = np.nanquantile(shown, 0.5), np.nanmax(shown)
        return _base64(np.nan_to_num(np.clip((shown - low) / max(high - low, 1e-6), 0, 1), nan=-1).astype(np.float32))

    @cached_property
    def _groups(self) -> tuple[list[str | None], np.ndarray]:
        """The names of the largest folders at the top level, and the position of each point's folder in them.

        The name "" stands for images directly in the gallery's folder, and None for all smaller folders together.
        """
        if self.search.is_public or not self.search.paths.folders:
            return [], np.zeros(len(self.rows), dtype=np.uint8)
        names = [
            name.split("/")[0] if "/" in name else "" for name in map(self.search.paths.name_of, self.rows.tolist())
        ]
        unique, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
        largest = np.argsort(-counts)[:MAX_GROUPS]
        position = np.full(len(unique), len(largest), dtype=np.uint8)
        position[largest] = np.arange(len(largest))
        groups: list[str | None] = [printable(str(unique[one])) for one in largest]
        return groups + ([None] if len(unique) > len(largest) else []), position[inverse]


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
