"""The decision threshold: chosen on validation, judged on test by sensitivity and specificity with Wilson intervals."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.statistics.metrics import Array

RULES = ("youden", "sensitivity", "half")
CHOSEN_ON = "val"


@dataclass(frozen=True)
class Threshold:
    """A patient is called positive where the raw probability is at least `value`.

    Attributes:
        rule: `youden`, `sensitivity` or `half` (0.5, whatever validation says).
        value: on the scale of `prob_<class>`; None where there is none, `reason` says why.
        calibrated: the same threshold on the calibrated scale; None without calibration.
        chosen_on: the split that chose it; empty for `half`.
        wanted_sensitivity: of the rule `sensitivity`, else None.
    """

    rule: str
    value: float | None = None
    calibrated: float | None = None
    chosen_on: str = CHOSEN_ON
    wanted_sensitivity: float | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The `threshold` section of `metrics.json`."""
        return asdict(self)


def choose_threshold(
    positive: NDArray[np.bool_], scores: Array, rule: str = "youden", wanted_sensitivity: float = 0.95
) -> Threshold:
    """Chooses a threshold on validation patients.

    Candidates lie halfway between neighbouring scores. `youden` maximises sensitivity + specificity - 1 (Youden
    1950); of equal ones the more sensitive is taken. `sensitivity` is the highest threshold that still finds the
    wanted share of positive patients, so the most specific one.

    Args:
        positive: [patients].
        scores: the positive label's probability, [patients].
        rule: one of `RULES`.
        wanted_sensitivity: in (0, 1], for the rule `sensitivity`.
    """
    wanted = wanted_sensitivity if rule == "sensitivity" else None
    if rule == "half":
        return Threshold(rule, 0.5, chosen_on="")
    if not len(positive) or positive.all() or not positive.any():
        lack = "the validation patients are of one label only" if len(positive) else "there is no validation patient"
        return Threshold(rule, wanted_sensitivity=wanted, reason=lack)
    values, inverse = np.unique(scores, return_inverse=True)
    if len(values) == 1:
        return Threshold(rule, wanted_sensitivity=wanted, reason="all validation scores are equal")
    candidates = np.concatenate([[values[0] / 2], (values[:-1] + values[1:]) / 2])
    hits = np.bincount(inverse, positive, len(values))[::-1].cumsum()[::-1] / positive.sum()
    false = np.bincount(inverse, ~positive, len(values))[::-1].cumsum()[::-1] / (~positive).sum()
    if rule == "youden":
        gain = np.round(hits - false, 12)
        best = int(np.argmax(gain))
    else:
        best = int(np.flatnonzero(hits >= wanted_sensitivity - 1e-12)[-1])
    return Threshold(rule, float(candidates[best]), wanted_sensitivity=wanted)


def judge_threshold(positive: NDArray[np.bool_], scores: Array, value: float) -> dict[str, Any]:
    """Sensitivity, specificity and predictive values at a threshold, each with its 95% Wilson interval, and counts."""
    called = scores >= value
    tp, fn = int((called & positive).sum()), int((~called & positive).sum())
    fp, tn = int((called & ~positive).sum()), int((~called & ~positive).sum())
    shares = {
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "positive_predictive_value": (tp, tp + fp),
        "negative_predictive_value": (tn, tn + fn),
    }
    found: dict[str, Any] = {"true_positive": tp, "false_negative": fn, "false_positive": fp, "true_negative": tn}
    for name, (hits, of) in shares.items():
        found[name] = hits / of if of else None
        found[f"{name}_ci95"] = wilson_interval(hits, of)
    return found


def wilson_interval(hits: int, of: int, level: float = 0.95) -> list[float] | None:
    """The score interval of a share (Wilson 1927), without continuity correction; None of nothing."""
    if of == 0:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = hits / of, z * z / of
    centre = (share + weight / 2) / (1 + weight)
    wide = z / (1 + weight) * math.sqrt(share * (1 - share) / of + weight / (4 * of))
    return [0.0 if hits == 0 else max(0.0, centre - wide), 1.0 if hits == of else min(1.0, centre + wide)]
