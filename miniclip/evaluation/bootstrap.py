"""Confidence intervals of recalls: a recall on some images estimates the recall on all images of their kind.

In: ranks of a split. Out: 95 % intervals by the bootstrap (B. Efron and R. Tibshirani, "An Introduction to the
Bootstrap", 1993, chapter 13). It draws images with replacement, not captions, because the captions of one image are not
independent of each other.
"""

from dataclasses import dataclass

import numpy as np

from miniclip.evaluation.metrics import KS, recalls

SAMPLES = 2000
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Ranks:
    """The ranks of T texts and I images; rank 0 is the best."""

    texts: np.ndarray  # (T,) rank of the image of each text
    images: np.ndarray  # (I,) rank of the best of each image's own texts
    image_of_text: np.ndarray  # (T,) row of the image of each text

    def recalls(self) -> dict[str, float]:
        """The six recalls and their mean; see `miniclip.evaluation.metrics`."""
        return recalls(self.texts, self.images)


def intervals(ranks: Ranks, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The two ends of the 95 % interval of each recall, by its name."""
    return _ends(_samples(ranks, seed))


def difference_intervals(ours: Ranks, theirs: Ranks, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each recall of `ours` minus that of `theirs`, by the name of the recall.

    Both must be ranks of the same images, and each draw takes the same images for both. An image that is hard for one
    model is usually hard for the other, so the difference is known much more precisely than each recall.
    """
    pairs = zip(_samples(ours, seed).items(), _samples(theirs, seed).values(), strict=True)
    return _ends({name: own - other for (name, own), other in pairs})


def _samples(ranks: Ranks, seed: int) -> dict[str, np.ndarray]:
    """Each recall on every draw, (SAMPLES,), by its name."""
    generator = np.random.default_rng(seed)
    count = len(ranks.images)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=SAMPLES).astype(np.float64)  # (S, I)
    texts = drawn @ np.bincount(ranks.image_of_text, minlength=count)
    samples = {f"image_to_text_recall@{k}": drawn @ (ranks.images < k) / count for k in KS}
    for k in KS:
        hits = np.bincount(ranks.image_of_text, weights=ranks.texts < k, minlength=count)
        samples[f"text_to_image_recall@{k}"] = drawn @ hits / texts
    samples["mean_recall"] = np.mean(list(samples.values()), axis=0)
    return samples


def _ends(samples: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    ends = {name: np.percentile(values, PERCENTILES) for name, values in samples.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}
