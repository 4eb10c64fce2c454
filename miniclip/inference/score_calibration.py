"""The probability that a score is a match: a logistic curve over cosine similarities, and a cut-off.

Calibration takes `JudgedQueries`: held-out images, and queries with known right images. It gives a `ScoreCalibration`,
which the bundle's manifest keeps. A search applies it to scores and the query's embedding.

The curve is a logistic regression. Each of a query's ten best images is one observation: its score is the only feature,
and the label says whether the image is right. So the number is the probability that such a result is right.

Scores of different queries are not comparable: "woman" fits no image as well as "a woman in a red coat" fits its image.
The embedding of a query predicts how high the scores of its matches are. So a learned vector, the offset, adds to every
score of the query. The order of scores within a query does not change.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from miniclip.errors import MiniClipError
from miniclip.inference.judged_queries import RIGHT, UNKNOWN, JudgedQueries
from miniclip.inference.logistic import fit_logistic, sigmoid
from miniclip.inference.match_cutoff import MIN_GALLERY, fit_cutoff

STRONG = 0.3  # from here, a match is strong: about half of such hits are right on photographs
MATCH_WORDS = ("weak", "likely", "strong")
# Below it, the best hit of a model's own probabilities matches nothing. They are small, because in training one pair in
# thousands was right: a correct description often gets 0.2.
MIN_OF_SIGMOID = 0.01
HITS = 10  # the curve is fitted to this many best images of a query, because users see no others


@dataclass(frozen=True)
class ScoreCalibration:
    """probability = 1 / (1 + exp(-(slope * (score + offset . text_embed) + intercept)))."""

    slope: float
    intercept: float
    cutoff: float  # a score including the offset
    pictures: int  # the number of images in the measurement
    captions: int
    split: str  # "val"; "train" if a run has no held-out images: then probabilities are too high; "" if not measured
    offset: list[float] = field(default_factory=list)  # D numbers; empty in bundles of earlier versions: no offset
    growth: float = 0.0  # increase of the cut-off for each factor of e in the size of a gallery
    gallery: int = 1  # the number of images for which `cutoff` holds; more images do not raise it

    def probability(self, scores: np.ndarray, text_embed: np.ndarray | None = None) -> np.ndarray:
        """Cosine similarities (...,) to a query (D,) -> probabilities of the same shape.

        Without `text_embed`, the scores already include their offset.
        """
        if text_embed is not None and self.offset:
            scores = scores + float(text_embed @ np.asarray(self.offset))
        return np.asarray(sigmoid(self.slope * scores + self.intercept))

    def cutoff_probability(self, images: int) -> float:
        """The probability that the best of `images` images must reach for a match."""
        share = min(max(images, MIN_GALLERY) / max(self.gallery, MIN_GALLERY), 1)
        return float(self.probability(np.asarray(self.cutoff + self.growth * np.log(share))))

    def words(self, probabilities: Sequence[float], images: int) -> list[str]:
        """One of `MATCH_WORDS` for each hit of a search among `images` images; the hits include the best one.

        If nothing matches, every hit is weak. Otherwise each is judged as in the smallest gallery: the cut-off rises
        with the number of images only to keep the best of many wrong scores below it.
        """
        if not len(probabilities) or max(probabilities) < self.cutoff_probability(images):
            return ["weak"] * len(probabilities)
        least = self.cutoff_probability(1)
        return ["weak" if own < least else "strong" if own >= STRONG else "likely" for own in probabilities]

    @classmethod
    def of_sigmoid(cls, scale: float, bias: float) -> "ScoreCalibration":
        """sigmoid(scale * cosine + bias), as a model trained with a sigmoid loss says. Nothing was measured."""
        cutoff = (float(np.log(MIN_OF_SIGMOID / (1 - MIN_OF_SIGMOID))) - bias) / scale
        return cls(scale, bias, cutoff, pictures=0, captions=0, split="")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_manifest(cls, value: Any, where: str, dim: int | None = None) -> "ScoreCalibration | None":
        """Read a manifest's entry for embeddings of `dim`; None if it has none.

        Errors: `MiniClipError` if the entry is damaged.
        """
        if value is None:
            return None
        try:
            numbers = {name: float(value[name]) for name in ("slope", "intercept", "cutoff")}
            offset = [float(number) for number in value.get("offset", [])]
            own = cls(
                **numbers,
                pictures=int(value["pictures"]),
                captions=int(value["captions"]),
                split=value["split"],
                offset=offset,
                growth=float(value.get("growth", 0)),
                gallery=int(value.get("gallery", 1)),
            )
            is_sound = (
                np.isfinite([*numbers.values(), *offset, own.growth]).all()
                and len(offset) in {0, dim or len(offset)}
                and own.gallery >= 1
            )
        except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
            is_sound = False
        if not is_sound:
            raise MiniClipError(f"{where}: match is not a calibration; copy or export the bundle again")
        return own


def calibrate(sources: Sequence[JudgedQueries], split: str) -> ScoreCalibration | None:
    """Fit offset, curve and cut-off. All sources have the same weight, whatever their number of queries.

    There is no offset unless the sources have words that match no image (`JudgedQueries.words`).
    None if there are too few images, or if matches do not score higher than other pairs.
    Errors: `MiniClipError` if an embedding is not finite.
    """
    sources = [own for own in sources if len(own.image_embeds) >= 2 and len(own.text_embeds) >= 2]
    if not sources:
        return None
    if not all(_is_finite(own) for own in sources):
        raise MiniClipError("the model's embeddings hold NaN or infinite values; train or export it again")
    cutoff = fit_cutoff(sources)
    hits = [best_hits(own, cutoff.offset) for own in sources]
    scores, labels = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    weights = np.concatenate([np.full(len(own), 1 / max(1, len(own))) for own, _ in hits])
    if labels.all() or not labels.any():
        return None
    slope, intercept = fit_logistic(np.column_stack([scores, np.ones_like(scores)]), labels, weights)
    if not slope > 0:
        return None
    return ScoreCalibration(
        float(slope),
        float(intercept),
        cutoff.score,
        pictures=sum(len(own.image_embeds) for own in sources),
        captions=sum(len(own.text_embeds) for own in sources),
        split=split,
        offset=[] if cutoff.offset is None else cutoff.offset.tolist(),
        growth=cutoff.growth,
        gallery=cutoff.gallery,
    )


def _is_finite(own: JudgedQueries) -> bool:
    embeds = [own.text_embeds, own.image_embeds, *([own.words.text_embeds] if own.words is not None else [])]
    return all(bool(np.isfinite(one).all()) for one in embeds)


def shifted(scores: np.ndarray, text_embeds: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    """scores (Q, ...) of queries (Q, D) -> the same with each query's offset."""
    if offset is None or not len(offset):
        return scores
    return np.asarray(scores + (text_embeds @ offset).reshape(-1, *[1] * (scores.ndim - 1)))


def best_hits(own: JudgedQueries, offset: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(M,) the shifted scores of each query's best images, and whether each is right, without unjudged images."""
    similarity = np.asarray(own.text_embeds @ own.image_embeds.T, dtype=np.float64)  # (Q, N)
    columns = np.argsort(-similarity, axis=1)[:, :HITS]
    scores = shifted(np.take_along_axis(similarity, columns, axis=1), own.text_embeds, offset)
    relation = np.take_along_axis(own.relation, columns, axis=1)
    judged = relation != UNKNOWN
    return scores[judged], relation[judged] == RIGHT
