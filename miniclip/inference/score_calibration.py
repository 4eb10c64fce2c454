"""How likely a score is a match: a logistic curve from cosine similarity to probability, and a cut-off.

In, at export: embeddings of held-out images and of their captions. Out: `ScoreCalibration`, which the bundle's
manifest keeps; in, at search: scores. Of all pairs of a caption and an image with such a score, the probability is the
share that belongs together, where one image of `images` is the right one. Below the cut-off lies the best score of
only one caption in twenty whose image is there: a query that stays below it finds nothing.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from miniclip.errors import MiniClipError

ANSWERED = 0.95  # of the captions whose image is there, the share that the cut-off lets through


@dataclass(frozen=True)
class ScoreCalibration:
    """probability = 1 / (1 + exp(-(slope * score + intercept)))."""

    slope: float
    intercept: float
    cutoff: float  # a score
    pictures: int  # that it was measured on
    captions: int
    split: str  # "val"; "train" where a run keeps no held-out images, which makes it too sure

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Cosine similarities of any shape -> probabilities of the same shape."""
        return np.asarray(1 / (1 + np.exp(-np.clip(self.slope * scores + self.intercept, -500, 500))))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_manifest(cls, value: Any, where: str) -> "ScoreCalibration | None":
        """What a manifest says, or None where it says nothing; `MiniClipError` where it says something else."""
        if value is None:
            return None
        try:
            numbers = {name: float(value[name]) for name in ("slope", "intercept", "cutoff")}
            own = cls(**numbers, pictures=int(value["pictures"]), captions=int(value["captions"]), split=value["split"])
        except (TypeError, KeyError, ValueError, OverflowError):
            raise MiniClipError(f"{where}: match is no calibration; copy or export the bundle again") from None
        if not np.isfinite(list(numbers.values())).all():
            raise MiniClipError(f"{where}: match is no calibration; copy or export the bundle again")
        return own


def calibrate(
    text_embeds: np.ndarray, image_embeds: np.ndarray, image_of_caption: np.ndarray, split: str
) -> ScoreCalibration | None:
    """text_embeds (N_texts, D), image_embeds (N_images, D), image_of_caption (N_texts,) -> the curve and the cut-off.

    None where there are too few images to tell, or where matches do not score higher than other pairs.
    """
    if len(image_embeds) < 2 or len(text_embeds) < 2:
        return None
    similarity = np.asarray(text_embeds @ image_embeds.T, dtype=np.float64)  # (N_texts, N_images)
    is_match = np.zeros(similarity.shape, dtype=bool)
    is_match[np.arange(len(text_embeds)), image_of_caption] = True
    slope, intercept = fit_logistic(similarity.ravel(), is_match.ravel())
    if not slope > 0:
        return None
    cutoff = float(np.quantile(similarity.max(axis=1), 1 - ANSWERED))
    return ScoreCalibration(slope, intercept, cutoff, len(image_embeds), len(text_embeds), split)


def fit_logistic(scores: np.ndarray, labels: np.ndarray, steps: int = 100) -> tuple[float, float]:
    """scores (N,), labels (N,) bool -> slope and intercept of greatest likelihood (Newton's method).

    Two of each label are added in thought (Platt 1999, section 2.2), so that no data makes the curve a step.
    """
    positive, negative = labels.sum(), (~labels).sum()
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    features = np.stack([scores, np.ones_like(scores)])  # (2, N)
    weights = np.array([0.0, np.log((positive + 1) / (negative + 1))])
    for _ in range(steps):
        predicted = 1 / (1 + np.exp(-np.clip(weights @ features, -500, 500)))
        gradient = features @ (predicted - targets)
        hessian = (features * (predicted * (1 - predicted))) @ features.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 20.0 / max(float(np.abs(step).max()), 1e-12))  # far from the top Newton overshoots
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    return float(weights[0]), float(weights[1])
