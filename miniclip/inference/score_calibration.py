"""How likely a score is a match: a logistic curve from cosine similarity to probability, and a cut-off.

In, to calibrate: `JudgedQueries`, held-out images and queries with known right images. Out: `ScoreCalibration`, which
the bundle's manifest keeps; in, at search: scores and the query's embedding.

Scores of different queries mean different things: "woman" fits no image as well as "a woman in a red coat" fits its
own. A query's embedding tells how high its scores are when something matches, so a learned vector, the offset, adds to
every score of the query. The order within a query stays that of the scores.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from miniclip.errors import MiniClipError

ANSWERED = 0.95  # share of queries with a right image that the cut-off lets through, where no words were absent
MIN_CHANCE = 0.4  # that anything is right for a word that is as often there as not: below it nothing matches
STRONG = 0.3  # called strong from here: about half of such hits are right on photographs, more on named objects
HITS = 10  # best images of a query that the curve is fitted to: people see no others
PENALTY = 0.006  # of the squared weight of the embedding, beside a mean log likelihood
MIN_WORDS = 20  # that a source shows, and that it does not, for an offset
STEPS = 100
UNKNOWN, WRONG, RIGHT = -1, 0, 1


@dataclass(frozen=True)
class Words:
    """Short queries, and whether any image of a source is right for them."""

    text_embeds: np.ndarray  # (Q, D) unit length
    best: np.ndarray  # (Q,) highest score of any image
    is_there: np.ndarray  # (Q,) bool


@dataclass(frozen=True)
class JudgedQueries:
    """Queries of one source, and which of its images are right."""

    text_embeds: np.ndarray  # (Q, D) unit length
    image_embeds: np.ndarray  # (N, D) unit length
    relation: np.ndarray  # (Q, N) int8: RIGHT, WRONG or UNKNOWN
    words: Words | None = None


@dataclass(frozen=True)
class ScoreCalibration:
    """probability = 1 / (1 + exp(-(slope * (score + offset . text_embed) + intercept)))."""

    slope: float
    intercept: float
    cutoff: float  # a score with its offset
    pictures: int  # that it was measured on
    captions: int
    split: str  # "val"; "train" where a run keeps no held-out images, which makes it too sure
    offset: list[float] = field(default_factory=list)  # D numbers; empty in bundles of earlier versions: no offset

    def probability(self, scores: np.ndarray, text_embed: np.ndarray | None = None) -> np.ndarray:
        """Cosine similarities (...,) to a query (D,) -> probabilities of the same shape.

        Without `text_embed` the scores hold their offset already.
        """
        if text_embed is not None and self.offset:
            scores = scores + float(text_embed @ np.asarray(self.offset))
        return np.asarray(_sigmoid(self.slope * scores + self.intercept))

    @property
    def cutoff_probability(self) -> float:
        """Where no image reaches it, nothing matches."""
        return float(self.probability(np.asarray(self.cutoff)))

    def word(self, probability: float) -> str:
        """`strong`, `likely` or `weak`; where nothing matches every image is weak."""
        if probability < self.cutoff_probability:
            return "weak"
        return "strong" if probability >= STRONG else "likely"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_manifest(cls, value: Any, where: str, dim: int | None = None) -> "ScoreCalibration | None":
        """Read a manifest's entry for embeddings of `dim`; None where it has none.

        Errors: `MiniClipError` when the entry is damaged.
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
            )
            is_sound = np.isfinite([*numbers.values(), *offset]).all() and len(offset) in {0, dim or len(offset)}
        except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
            is_sound = False
        if not is_sound:
            raise MiniClipError(f"{where}: match is no calibration; copy or export the bundle again")
        return own


def calibrate(sources: Sequence[JudgedQueries], split: str) -> ScoreCalibration | None:
    """Fit offset, curve and cut-off; every source counts the same, however many queries it has.

    Without words that nothing is right for (`JudgedQueries.words`) there is no offset.
    None where there are too few images to tell, or where matches do not score higher than other pairs.
    """
    sources = [own for own in sources if len(own.image_embeds) >= 2 and len(own.text_embeds) >= 2]
    if not sources:
        return None
    offset, cutoff = _fit_offset([own.words for own in sources if own.words is not None])
    hits = [_best_hits(own, offset) for own in sources]
    scores, labels, weights = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    if labels.all() or not labels.any():
        return None
    slope, intercept = fit_logistic(np.column_stack([scores, np.ones_like(scores)]), labels, weights)
    if not slope > 0:
        return None
    if cutoff is None:
        best, shares = zip(*(_best_of_answered(own) for own in sources), strict=True)
        cutoff = _quantile(np.concatenate(best), np.concatenate(shares), 1 - ANSWERED)
    return ScoreCalibration(
        float(slope),
        float(intercept),
        cutoff,
        pictures=sum(len(own.image_embeds) for own in sources),
        captions=sum(len(own.text_embeds) for own in sources),
        split=split,
        offset=[] if offset is None else offset.tolist(),
    )


def _fit_offset(sources: Sequence[Words]) -> tuple[np.ndarray | None, float | None]:
    """The vector (D,) whose product with a word's embedding makes best scores of words comparable, and a cut-off.

    A logistic curve from best score and embedding to whether anything is right; both answers weigh the same.
    """
    sources = [own for own in sources if min(own.is_there.sum(), (~own.is_there).sum()) >= MIN_WORDS]
    if not sources:
        return None, None
    best = np.concatenate([own.best for own in sources])
    texts = np.concatenate([own.text_embeds for own in sources])
    labels = np.concatenate([own.is_there for own in sources])
    weights = np.concatenate([np.sqrt(own.is_there.sum()) * _balance(own.is_there) for own in sources])
    features = np.column_stack([best, np.ones_like(best), texts])
    found = fit_logistic(features, labels, weights, np.r_[0, 0, np.full(texts.shape[1], PENALTY)])
    if not found[0] > 0:
        return None, None
    cutoff = (np.log(MIN_CHANCE / (1 - MIN_CHANCE)) - found[1]) / found[0]
    return np.round(found[2:] / found[0], 5), float(cutoff)


def _balance(labels: np.ndarray) -> np.ndarray:
    """Weights with which both labels of a source weigh one half."""
    return np.asarray(np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()))


def _best_of_answered(own: JudgedQueries) -> tuple[np.ndarray, np.ndarray]:
    """Best scores of the queries with a right image, and their weights, 1 in sum."""
    texts = own.text_embeds[(own.relation == RIGHT).any(axis=1)]
    best = (texts @ own.image_embeds.T).max(axis=1, initial=-1.0)
    return best, np.full(len(best), 1 / max(1, len(best)))


def _shift(text_embeds: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    return np.zeros(len(text_embeds)) if offset is None else text_embeds @ offset


def _best_hits(own: JudgedQueries, offset: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifted scores, labels and weights of each query's best images, without those that nobody judged."""
    similarity = np.asarray(own.text_embeds @ own.image_embeds.T, dtype=np.float64)  # (Q, N)
    columns = np.argsort(-similarity, axis=1)[:, :HITS]
    scores = np.take_along_axis(similarity, columns, axis=1) + _shift(own.text_embeds, offset)[:, None]
    relation = np.take_along_axis(own.relation, columns, axis=1)
    judged = relation != UNKNOWN
    return scores[judged], relation[judged] == RIGHT, np.full(judged.sum(), 1 / max(1, judged.sum()))


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value below which `share` of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share, side="right")), len(values) - 1)])


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, penalty: np.ndarray | None = None
) -> np.ndarray:
    """features (M, F), labels (M,) bool, weights (M,), penalty (F,) of squares -> coefficients (F,).

    Greatest likelihood by Newton's method. Two of each label are added in thought (Platt 1999, section 2.2), so that no
    data makes the curve a step.
    """
    positive, negative = labels.sum(), (~labels).sum()
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    features = np.asarray(features, dtype=np.float64)
    weights = np.ones(len(features)) if weights is None else weights
    weights = weights / weights.sum()
    penalty = (np.zeros(features.shape[1]) if penalty is None else penalty) + 1e-9
    found = np.zeros(features.shape[1])
    for _ in range(STEPS):
        predicted = _sigmoid(features @ found)
        gradient = features.T @ (weights * (predicted - targets)) + penalty * found
        hessian = (features * (weights * predicted * (1 - predicted))[:, None]).T @ features + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 20.0 / max(float(np.abs(step).max()), 1e-12))  # far from the top Newton overshoots
        found = found - step
        if np.abs(step).max() < 1e-6:
            break
    return found


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))))
