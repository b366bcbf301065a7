"""Patient-level metrics with bootstrap intervals: one implementation, weighted by how often each patient was drawn.

The point estimate is the same computation with every weight 1. "Positive" is class 1, the later label in
sorted order, where there are two classes; with more, AUC is the macro mean of one-against-rest AUCs and
precision, recall and f1 are macro means over the classes that occur in the truth or among the predictions.

Lower is better for `log_loss`, `weighted_log_loss`, `brier`, `ece` and `ece_adaptive`; higher for the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.records.provenance import derive_seed

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "auc",
    "precision",
    "recall",
    "f1",
    "log_loss",
    "weighted_log_loss",
    "brier",
    "ece",
    "ece_adaptive",
)
LOWER_IS_BETTER = frozenset({"log_loss", "weighted_log_loss", "brier", "ece", "ece_adaptive"})
ECE_BINS = 10
SMALLEST_PROBABILITY = 1e-15
_CHUNK_VALUES = 1 << 22


def normalise_probabilities(probabilities: NDArray[np.floating[Any]]) -> Array:
    """Probabilities in float64 whose rows sum to 1.

    Args:
        probabilities: [patients, classes], any float type, none negative.
    """
    values = np.asarray(probabilities, np.float64)
    return np.asarray(values / values.sum(axis=1, keepdims=True), np.float64)


def confidence_bins(confidence: Array) -> Indices:
    """The bin of each confidence among `ECE_BINS` bins of equal width, closed above: (0, 0.1], …, (0.9, 1]."""
    bins = np.ceil(np.asarray(confidence, np.float64) * ECE_BINS).astype(np.int64) - 1
    return np.clip(bins, 0, ECE_BINS - 1)


def adaptive_bins(confidence: Array) -> Indices:
    """The bin of each confidence among `ECE_BINS` bins of as equal a number of patients as ties allow."""
    _, value, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts + (counts - 1) / 2
    return np.asarray((middle * ECE_BINS / max(1, len(confidence))).astype(np.int64)[value], np.int64)


def measure(labels: Indices, probabilities: NDArray[np.floating[Any]]) -> dict[str, float | None]:
    """Every metric of `METRICS`, from one prediction a patient.

    Args:
        labels: [patients], each patient's class index.
        probabilities: [patients, classes].

    Returns:
        Metric name to value; None where it is not defined: everything without patients, `auc` with one
        class only, `precision`, `recall` and `f1` of two classes without a positive patient.
        Precision is 0 where no patient was called positive, as scikit-learn has it.
    """
    if len(labels) == 0:
        return dict.fromkeys(METRICS)
    values = _weighted_metrics(np.ones((1, len(labels))), np.asarray(labels), normalise_probabilities(probabilities))
    return {name: _number(values[name][0]) for name in METRICS}


def bootstrap_intervals(
    labels: Indices, probabilities: NDArray[np.floating[Any]], samples: int = 1000, seed: int = 0
) -> dict[str, list[float] | None]:
    """95% percentile intervals of every metric; patients are drawn with replacement within each label.

    Args:
        labels: [patients], each patient's class index.
        probabilities: [patients, classes].
        samples: how many times a cohort is drawn (Efron & Tibshirani 1993, ch. 13); 0 for no intervals.
        seed: of the draws.

    Returns:
        Metric name to [lower, upper], None where the metric is not defined.
    """
    if len(labels) == 0 or samples < 1:
        return dict.fromkeys(METRICS)
    labels = np.asarray(labels)
    probabilities = normalise_probabilities(probabilities)
    random = np.random.default_rng(derive_seed(seed, "bootstrap"))
    drawn: dict[str, list[Array]] = {name: [] for name in METRICS}
    left = samples
    while left:
        count = min(left, max(1, _CHUNK_VALUES // len(labels)))
        values = _weighted_metrics(_draw(labels, count, random), labels, probabilities)
        for name in METRICS:
            drawn[name].append(values[name])
        left -= count
    return {name: _interval(np.concatenate(parts)) for name, parts in drawn.items()}


def describe_split(
    labels: Indices, probabilities: NDArray[np.floating[Any]], *, samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """What `metrics.json` says of one split: `n_patients`, the metrics, `auc_ci95`, and `ci95` of every metric."""
    intervals = bootstrap_intervals(labels, probabilities, samples, seed)
    return {
        "n_patients": len(labels),
        **measure(labels, probabilities),
        "auc_ci95": intervals["auc"],
        "ci95": intervals,
    }


def _draw(labels: Indices, count: int, random: np.random.Generator) -> Array:
    """[count, patients]: how often each patient is in each drawn cohort; every label keeps its number."""
    weights = np.zeros((count, len(labels)))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        weights[:, members] = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=count)
    return weights


def _weighted_metrics(weights: Array, labels: Indices, probabilities: Array) -> dict[str, Array]:
    """Each metric of each drawn cohort: weights [cohorts, patients] to name: [cohorts], NaN where undefined."""
    classes = probabilities.shape[1]
    truth = np.eye(classes)[labels]
    predicted = probabilities.argmax(axis=1)
    total = weights.sum(axis=1)
    confusion = _confusion(weights, labels, predicted, classes)
    of_class = confusion.sum(axis=2)
    correct = np.einsum("bii->bi", confusion)
    losses = _log_losses(labels, probabilities)
    class_losses = _ratio(weights @ (truth * losses[:, None]), of_class)
    squares = (probabilities - truth) ** 2
    confidence, right = probabilities.max(axis=1), predicted == labels
    brier = squares[:, 1] if classes == 2 else squares.sum(axis=1)
    return {
        "accuracy": correct.sum(axis=1) / total,
        "balanced_accuracy": _mean_of_defined(_ratio(correct, of_class)),
        "auc": _auc(weights, labels, probabilities),
        **_precision_recall_f1(confusion),
        "log_loss": weights @ losses / total,
        "weighted_log_loss": _mean_of_defined(class_losses),
        "brier": weights @ brier / total,
        "ece": _calibration_error(weights, confidence, right, confidence_bins(confidence)),
        "ece_adaptive": _calibration_error(weights, confidence, right, adaptive_bins(confidence)),
    }


def _confusion(weights: Array, labels: Indices, predicted: Indices, classes: int) -> Array:
    cells = np.eye(classes * classes)[labels * classes + predicted]
    return np.asarray((weights @ cells).reshape(-1, classes, classes))


def _log_losses(labels: Indices, probabilities: Array) -> Array:
    """-ln p of the true class; clipped to [1e-15, 1 - 1e-15] and divided by the row sum, as Kaggle scores STRIP AI."""
    clipped = np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    clipped /= clipped.sum(axis=1, keepdims=True)
    return np.asarray(-np.log(clipped[np.arange(len(labels)), labels]))


def _precision_recall_f1(confusion: Array) -> dict[str, Array]:
    hits = np.einsum("bii->bi", confusion)
    true, called = confusion.sum(axis=2), confusion.sum(axis=1)
    per_class = {
        "precision": np.where(called > 0, _ratio(hits, called), 0.0),
        "recall": np.where(true > 0, _ratio(hits, true), 0.0),
        "f1": np.where(true + called > 0, _ratio(2 * hits, true + called), 0.0),
    }
    if confusion.shape[1] == 2:
        return {name: np.where(true[:, 1] > 0, values[:, 1], np.nan) for name, values in per_class.items()}
    occurs = true + called > 0
    return {name: _mean_of_defined(np.where(occurs, values, np.nan)) for name, values in per_class.items()}


def _auc(weights: Array, labels: Indices, probabilities: Array) -> Array:
    classes = probabilities.shape[1]
    if classes == 2:
        return _binary_auc(weights, labels == 1, probabilities[:, 1])
    return _mean_of_defined(
        np.stack([_binary_auc(weights, labels == c, probabilities[:, c]) for c in range(classes)], axis=1)
    )


def _binary_auc(weights: Array, positive: NDArray[np.bool_], scores: Array) -> Array:
    """Mann-Whitney: the share of (positive, negative) pairs in the right order, ties counting half."""
    if positive.all() or not positive.any():
        return np.full(len(weights), np.nan)
    _, rank = np.unique(scores, return_inverse=True)
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    positives = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    auc: Array = _ratio((positives * (below + negatives / 2)).sum(axis=1), pairs)
    return auc


def _calibration_error(weights: Array, confidence: Array, correct: NDArray[np.bool_], bins: Indices) -> Array:
    """|accuracy - confidence| of each bin, by its share (Guo et al. 2017, eq. 3; Nguyen & O'Connor 2015 adaptive).

    In a drawn cohort the adaptive bins stay those of all patients.
    """
    members = np.eye(ECE_BINS)[bins]
    gaps = np.abs(weights @ (members * (correct - confidence)[:, None]))
    return np.asarray(gaps.sum(axis=1) / weights.sum(axis=1))


def _ratio(numerator: Array, denominator: Array) -> Array:
    out = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def _mean_of_defined(values: Array) -> Array:
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def _interval(values: Array) -> list[float] | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
