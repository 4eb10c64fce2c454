"""Logistic regression by Newton's method, for curves of a few hundred coefficients."""

import numpy as np

MAX_STEPS = 100


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, penalty: np.ndarray | None = None
) -> np.ndarray:
    """features (M, F), labels (M,) bool, weights (M,), penalty (F,) of squares -> coefficients (F,).

    Maximises the likelihood. The targets are smoothed as in Platt 1999, section 2.2, so that separable data give a
    finite curve.
    """
    positive, negative = labels.sum(), (~labels).sum()
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    features = np.asarray(features, dtype=np.float64)
    weights = np.ones(len(features)) if weights is None else weights
    weights = weights / weights.sum()
    penalty = (np.zeros(features.shape[1]) if penalty is None else penalty) + 1e-9
    found = np.zeros(features.shape[1])
    for _ in range(MAX_STEPS):
        predicted = sigmoid(features @ found)
        gradient = features.T @ (weights * (predicted - targets)) + penalty * found
        hessian = (features * (weights * predicted * (1 - predicted))[:, None]).T @ features + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 20.0 / max(float(np.abs(step).max()), 1e-12))  # Newton's method may overshoot
        found = found - step
        if np.abs(step).max() < 1e-6:
            break
    return found


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The sigmoid of each element; logits beyond ±500 are clipped."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))))
