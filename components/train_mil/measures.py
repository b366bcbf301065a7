"""What is measured after each epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rank_auc(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve by ranks (Mann–Whitney, ties count half); None where one side is empty."""
    wins = scores[positive][:, None] - scores[~positive][None, :]
    return float(np.mean((wins > 0) + 0.5 * (wins == 0))) if wins.size else None


def mean_auc(probabilities: Floats, labels: NDArray[np.int64]) -> float | None:
    """Of two classes the second's AUC, of more the mean of each against the rest; None where one side is empty.

    Args:
        probabilities: [patients, classes].
        labels: [patients].
    """
    classes = range(1, 2) if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    found = [rank_auc(probabilities[:, index], labels == index) for index in classes]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def balanced_weights(labels: NDArray[np.int64], classes: int) -> Floats:
    """Weight of each class: patients / (classes × patients of the class), so that every class counts the same."""
    counts = np.bincount(labels, minlength=classes)
    return len(labels) / (classes * np.maximum(counts, 1))
