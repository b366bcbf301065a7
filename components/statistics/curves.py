"""The curves behind the metrics: ROC, confusion matrix and calibration, finite and thin enough to store."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from components.statistics.metrics import ECE_BINS, Array, Indices, confidence_bins

MOST_POINTS = 200


@dataclass(frozen=True)
class Curves:
    """What the plots and KFP's ClassificationMetrics show of one split.

    Attributes:
        split: whose patients these are.
        labels: class names in index order.
        roc: `fpr`, `tpr` and `threshold` of equal length, at most 200 points, thresholds within [0, 1];
            empty where there is one class only. With more than two classes: all one-against-rest
            decisions taken together (micro average).
        confusion: [true class][predicted class], patients.
        calibration: per occupied bin: `predicted` (mean), `observed` (share) and `patients`. Of two classes
            the positive one's probability, of more the predicted class's.
        calibrated: the same of the calibrated probabilities; empty where there are none.
        threshold: `fpr` and `tpr` at the decision threshold; empty where there is none.
        abstention: `coverage` and `risk` of equal length.
    """

    split: str
    labels: tuple[str, ...]
    roc: dict[str, list[float]]
    confusion: list[list[int]]
    calibration: list[dict[str, float]]
    calibrated: list[dict[str, float]] = field(default_factory=list)
    threshold: dict[str, float] = field(default_factory=dict)
    abstention: dict[str, list[float]] = field(default_factory=dict)


def draw_curves(split: str, labels: tuple[str, ...], truth: Indices, probabilities: Array) -> Curves:
    """The curves of one split from truth [patients] and probabilities [patients, classes] with rows summing to 1."""
    classes = len(labels)
    confusion = np.zeros((classes, classes), np.int64)
    if len(truth):
        np.add.at(confusion, (truth, probabilities.argmax(axis=1)), 1)
    return Curves(
        split, labels, roc_curve(truth, probabilities), confusion.tolist(), calibration_bins(truth, probabilities)
    )


def roc_curve(truth: Indices, probabilities: Array) -> dict[str, list[float]]:
    """False and true positive rate at every threshold, thinned; scikit-learn's infinite first threshold becomes 1.

    Vertex stores the curve as JSON, which has no infinity.
    """
    empty: dict[str, list[float]] = {"fpr": [], "tpr": [], "threshold": []}
    if not len(truth):
        return empty
    classes = probabilities.shape[1]
    positive = truth == 1 if classes == 2 else np.eye(classes, dtype=bool)[truth].ravel()
    scores = probabilities[:, 1] if classes == 2 else probabilities.ravel()
    if positive.all() or not positive.any():
        return empty
    order = np.argsort(-scores, kind="stable")
    last_of_value = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[last_of_value]
    false = last_of_value + 1 - hits
    fpr = np.concatenate([[0.0], false / (~positive).sum()])
    tpr = np.concatenate([[0.0], hits / positive.sum()])
    threshold = np.clip(np.concatenate([[1.0], scores[order][last_of_value]]), 0.0, 1.0)
    if len(fpr) > MOST_POINTS:
        keep = np.unique(np.linspace(0, len(fpr) - 1, MOST_POINTS).round().astype(np.int64))
        fpr, tpr, threshold = fpr[keep], tpr[keep], threshold[keep]
    return {"fpr": fpr.tolist(), "tpr": tpr.tolist(), "threshold": threshold.tolist()}


def calibration_bins(truth: Indices, probabilities: Array) -> list[dict[str, float]]:
    """Predicted probability against observed share in bins of equal width (reliability diagram)."""
    if not len(truth):
        return []
    if probabilities.shape[1] == 2:
        predicted, observed = probabilities[:, 1], truth == 1
    else:
        predicted, observed = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = confidence_bins(predicted)
    found = []
    for number in range(ECE_BINS):
        members = bins == number
        if members.any():
            found.append(
                {
                    "predicted": float(predicted[members].mean()),
                    "observed": float(observed[members].mean()),
                    "patients": int(members.sum()),
                }
            )
    return found
