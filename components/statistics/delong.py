"""AUC with its variance, and two models on the same patients: DeLong et al. 1988, as fast as Sun & Xu 2014 made it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.statistics.metrics import Array

_NORMAL = NormalDist()
_NO_VARIANCE = 1e-14


@dataclass(frozen=True)
class AucEstimate:
    """An AUC with its standard error and 95% interval (normal, cut to 0–1); `reason` says why one is None."""

    auc: float | None
    standard_error: float | None = None
    ci95: tuple[float, float] | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `metrics.json` holds it."""
        return {**asdict(self), "ci95": list(self.ci95) if self.ci95 else None}


@dataclass(frozen=True)
class AucComparison:
    """Two models' AUCs on the same patients: their difference (first - second), its 95% interval, z and two-sided p."""

    first: float | None
    second: float | None
    difference: float | None = None
    standard_error: float | None = None
    ci95: tuple[float, float] | None = None
    z: float | None = None
    p: float | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `metrics.json` holds it."""
        return {**asdict(self), "ci95": list(self.ci95) if self.ci95 else None}


def delong_covariance(positive: NDArray[np.bool_], scores: Sequence[Array]) -> tuple[Array, Array]:
    """AUCs [models] and their covariance [models, models].

    Sun & Xu 2014 (IEEE Signal Processing Letters 21, 1389), eq. 5–9: the structural components of DeLong et al. 1988
    come from midranks, in O(n log n) where the definition takes every pair.

    Args:
        positive: [patients], whether each is positive; at least two are, and two are not.
        scores: for each model, [patients].
    """
    m, n = int(positive.sum()), int((~positive).sum())
    of_positive, of_negative, aucs = [], [], []
    for values in scores:
        together = midranks(np.concatenate([values[positive], values[~positive]]))
        v10 = (together[:m] - midranks(values[positive])) / n
        v01 = 1 - (together[m:] - midranks(values[~positive])) / m
        of_positive.append(v10)
        of_negative.append(v01)
        aucs.append(float(v10.mean()))
    covariance = np.atleast_2d(np.cov(of_positive)) / m + np.atleast_2d(np.cov(of_negative)) / n
    return np.array(aucs), np.asarray(covariance, np.float64)


def midranks(values: Array) -> Array:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def estimate_auc(positive: NDArray[np.bool_], scores: Array, level: float = 0.95) -> AucEstimate:
    """One model's AUC with DeLong's standard error and interval.

    Where the variance is 0 (labels perfectly apart, or all scores equal) the interval would be a point that claims
    certainty; then there is none, and `reason` says so.
    """
    auc, reason = _plain_auc(positive, scores), _lacking(positive)
    if auc is None or reason:
        return AucEstimate(auc, reason=reason)
    _, covariance = delong_covariance(positive, [scores])
    variance = float(covariance[0, 0])
    if variance < _NO_VARIANCE:
        return AucEstimate(auc, reason=_no_variance(auc, scores))
    error = math.sqrt(variance)
    wide = _quantile(level) * error
    return AucEstimate(auc, error, (max(0.0, auc - wide), min(1.0, auc + wide)))


def compare_aucs(positive: NDArray[np.bool_], first: Array, second: Array, level: float = 0.95) -> AucComparison:
    """Two models on the same patients: is one's AUC better?

    Args:
        positive: [patients].
        first: one model's scores, [patients].
        second: the other's, in the same order.
        level: of the interval.
    """
    aucs, reason = (_plain_auc(positive, first), _plain_auc(positive, second)), _lacking(positive)
    if aucs[0] is None or aucs[1] is None or reason:
        return AucComparison(*aucs, reason=reason)
    _, covariance = delong_covariance(positive, [first, second])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = aucs[0] - aucs[1]
    if variance < _NO_VARIANCE:
        return AucComparison(*aucs, difference, reason="the two order the patients alike, or both perfectly")
    error = math.sqrt(variance)
    z, wide = difference / error, _quantile(level) * error
    interval = (max(-1.0, difference - wide), min(1.0, difference + wide))
    return AucComparison(*aucs, difference, error, interval, z, math.erfc(abs(z) / math.sqrt(2)))


def _plain_auc(positive: NDArray[np.bool_], scores: Array) -> float | None:
    m, n = int(positive.sum()), int((~positive).sum())
    if not (m and n):
        return None
    return float((midranks(scores)[positive].sum() - m * (m + 1) / 2) / (m * n))


def _lacking(positive: NDArray[np.bool_]) -> str:
    fewest = min(int(positive.sum()), int((~positive).sum()))
    if fewest == 0:
        return "there are patients of one label only" if len(positive) else "there are no patients"
    return "a label has one patient only" if fewest == 1 else ""


def _no_variance(auc: float, scores: Array) -> str:
    if len(np.unique(scores)) == 1:
        return "all scores are equal"
    return "the labels are perfectly apart: the estimated variance is 0" if auc in (0.0, 1.0) else "the variance is 0"


def _quantile(level: float) -> float:
    return _NORMAL.inv_cdf((1 + level) / 2)
