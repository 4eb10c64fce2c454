"""Names for groups of similar images on the map, as zero-shot labels (CLIP, Radford et al. 2021, section 3.1).

In: the map's points, the images' embeddings, and everyday words. Out: a name and a place for each group that one word
describes well. A wrong name is worse than none, so a word must be distinctive (it fits the group better than the whole
gallery) and likely (by the bundle's calibration, it matches enough images of the group).
"""

from dataclasses import dataclass

import numpy as np

from miniclip.inference.encoders import Encoders
from miniclip.inference.score_calibration import ScoreCalibration

from .vocabulary import WORDS

MAX_CLUSTERS = 40
IMAGES_PER_CLUSTER = 12  # on average, at least
FIT_SAMPLE = 10_000  # k-means is fitted to this many images, or up to twice as many
K_MEANS_STEPS = 15
BEST_WORDS = 3  # a word describes an image only if it is among the image's best
MIN_SHARE = 0.3  # least share of a cluster's images that its word describes; a noun alone often has a low probability
MIN_LEAD = 0.18  # least difference of a word's similarities to the mean of the cluster and to that of all images
IMAGES_PER_CELL = 3  # on average, in the grid that finds where on the map a group is dense
MIN_CELLS, MAX_CELLS = 8, 64  # per side of that grid
MIN_PURITY = 0.15  # share of the images around a name that belong to its group; groups overlap in two dimensions


@dataclass(frozen=True)
class NamedCluster:
    """`x` and `y` are the name's place on the map, `size` the number of images."""

    name: str
    x: float
    y: float
    size: int


def named_clusters(
    points: np.ndarray, image_embeds: np.ndarray, encoders: Encoders, calibration: ScoreCalibration | None
) -> list[NamedCluster]:
    """points (P, 2) in [-1, 1], image_embeds (P, D) -> groups, the largest first.

    Clusters with the same name become one group. Without a calibration there are no names.
    """
    count = min(MAX_CLUSTERS, len(points) // IMAGES_PER_CLUSTER)
    if calibration is None or count < 2:
        return []
    cluster_of, means = k_means(image_embeds, count)
    text_embeds = encoders.encode_texts(WORDS)  # (W, D)
    describes = described(image_embeds, text_embeds, calibration)  # (W, P)
    lead = (means - image_embeds.mean(axis=0)) @ text_embeds.T  # (K, W)
    words = np.full(len(means), -1)
    for cluster, word in enumerate(lead.argmax(axis=1)):
        is_likely = describes[word, cluster_of == cluster].mean() >= MIN_SHARE
        if is_likely and lead[cluster, word] >= MIN_LEAD:
            words[cluster] = word
    word_of = words[cluster_of]  # (P,)
    groups = []
    for word in np.unique(words[words >= 0]):
        place = densest_place(points, word_of == word)
        if place is not None:
            groups.append(NamedCluster(WORDS[word], *place, size=int((word_of == word).sum())))
    return sorted(groups, key=lambda group: -group.size)


def described(image_embeds: np.ndarray, text_embeds: np.ndarray, calibration: ScoreCalibration) -> np.ndarray:
    """image_embeds (P, D), text_embeds (W, D) -> (W, P): whether a word likely matches and is among an image's best."""
    similarity = text_embeds @ image_embeds.T
    probability = np.stack([calibration.probability(*one) for one in zip(similarity, text_embeds, strict=True)])
    best = np.partition(probability, -BEST_WORDS, axis=0)[-BEST_WORDS]  # (P,)
    return np.asarray((probability >= best) & (probability >= calibration.cutoff_probability(len(image_embeds))))


def k_means(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(P, D) -> cluster_of (P,) and centres (K, D), K <= count (Lloyd 1982); the first centres are an even sample."""
    sample = vectors[:: max(1, len(vectors) // FIT_SAMPLE)]
    centres = sample[np.linspace(0, len(sample) - 1, count).astype(int)]
    for _ in range(K_MEANS_STEPS):
        cluster_of = _nearest(sample, centres)
        centres = np.stack([sample[cluster_of == one].mean(axis=0) for one in np.unique(cluster_of)])
    used, cluster_of = np.unique(_nearest(vectors, centres), return_inverse=True)
    return cluster_of, centres[used]


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray((vectors @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1))


def densest_place(points: np.ndarray, is_member: np.ndarray) -> tuple[float, float] | None:
    """The place on the map with many images of a group and few others around it; None if there is no such place."""
    side = int(np.clip(np.sqrt(len(points) / IMAGES_PER_CELL), MIN_CELLS, MAX_CELLS))
    cells = np.clip(((points + 1) / 2 * side).astype(int), 0, side - 1)  # (P, 2)
    total, own = _count_around(cells, side), _count_around(cells[is_member], side)
    purity = own / np.maximum(total, 1)
    cell = np.unravel_index((own * purity).argmax(), own.shape)
    if own[cell] < IMAGES_PER_CLUSTER / 2 or purity[cell] < MIN_PURITY:
        return None
    around = is_member & (np.abs(cells - cell) <= 1).all(axis=1)
    x, y = points[around].mean(axis=0)
    return float(x), float(y)


def _count_around(cells: np.ndarray, side: int) -> np.ndarray:
    """(P, 2) cells -> (side, side): the number of points in each cell and its eight neighbours."""
    counts = np.zeros((side + 2, side + 2))
    np.add.at(counts, (cells[:, 0] + 1, cells[:, 1] + 1), 1)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(counts, (3, 3)).sum(axis=(2, 3)))
