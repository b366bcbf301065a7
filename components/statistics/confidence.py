"""How sure the model may be: calibration and threshold from validation, and what they are worth in every split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from components.records.errors import InputError
from components.statistics.abstention import describe_abstention
from components.statistics.calibration import FITTED_ON, METHODS, Calibration, fit_temperature, scale_probabilities
from components.statistics.curves import Curves, calibration_bins, draw_curves
from components.statistics.delong import estimate_auc
from components.statistics.metrics import Array, Indices, bootstrap_intervals, measure
from components.statistics.threshold import RULES, Threshold, choose_threshold, judge_threshold

CALIBRATED = ("log_loss", "weighted_log_loss", "brier", "ece", "ece_adaptive")
Cohort = tuple[Indices, Array]


def check_confidence(calibration: str, threshold_rule: str, wanted_sensitivity: float) -> None:
    """Raises InputError where a parameter names no method or rule, or the sensitivity is no share."""
    for name, value, known in (("calibration", calibration, METHODS), ("threshold_rule", threshold_rule, RULES)):
        if value not in known:
            raise InputError(f"unknown {name} {value!r}", where=name, mend=f"use one of {', '.join(known)}")
    if not 0 < wanted_sensitivity <= 1:
        raise InputError(
            f"{wanted_sensitivity} is no sensitivity", where="wanted_sensitivity", mend="give one up to 1, such as 0.95"
        )


@dataclass(frozen=True)
class Confidence:
    """What validation taught: how to calibrate, and where to cut.

    Attributes:
        calibration: the temperature.
        threshold: the decision threshold, of two labels only.
    """

    calibration: Calibration
    threshold: Threshold

    def describe(
        self, labels: Sequence[str], truth: Indices, probabilities: Array, *, samples: int, seed: int
    ) -> dict[str, Any]:
        """What `metrics.json` says of one split beside the plain metrics.

        Args:
            labels: in index order.
            truth: [patients].
            probabilities: raw, [patients, classes], rows summing to 1.
            samples: of the bootstrap.
            seed: of the bootstrap.
        """
        return {
            "auc_delong": _describe_delong(labels, truth, probabilities),
            "calibrated": self._describe_calibrated(truth, probabilities, samples, seed),
            "at_threshold": self._describe_threshold(truth, probabilities),
            "abstention": describe_abstention(truth, probabilities),
        }

    def draw(self, split: str, labels: tuple[str, ...], truth: Indices, probabilities: Array) -> Curves:
        """The curves of one split, the calibrated ones and the threshold's place among them."""
        plain = draw_curves(split, labels, truth, probabilities)
        calibrated = self.calibration.apply(probabilities)
        judged = self._describe_threshold(truth, probabilities) or {}
        sensitivity, specificity = judged.get("sensitivity"), judged.get("specificity")
        at = {} if sensitivity is None or specificity is None else {"fpr": 1 - specificity, "tpr": sensitivity}
        return replace(
            plain,
            calibrated=[] if calibrated is None else calibration_bins(truth, calibrated),
            threshold=at,
            abstention=describe_abstention(truth, probabilities)["curve"],
        )

    def _describe_calibrated(
        self, truth: Indices, probabilities: Array, samples: int, seed: int
    ) -> dict[str, Any] | None:
        calibrated = self.calibration.apply(probabilities)
        if calibrated is None:
            return None
        values, intervals = measure(truth, calibrated), bootstrap_intervals(truth, calibrated, samples, seed)
        return {**{name: values[name] for name in CALIBRATED}, "ci95": {name: intervals[name] for name in CALIBRATED}}

    def _describe_threshold(self, truth: Indices, probabilities: Array) -> dict[str, Any] | None:
        if self.threshold.value is None or probabilities.shape[1] != 2:
            return None
        return judge_threshold(truth == 1, probabilities[:, 1], self.threshold.value)


def learn_confidence(
    cohorts: Mapping[str, Cohort], classes: int, *, calibration: str, threshold_rule: str, wanted_sensitivity: float
) -> Confidence:
    """Fits temperature and threshold on the validation patients alone.

    Args:
        cohorts: split → truth [patients] and probabilities [patients, classes].
        classes: number of labels.
        calibration: one of `METHODS`.
        threshold_rule: one of `RULES`.
        wanted_sensitivity: for the rule `sensitivity`.
    """
    nobody = (np.zeros(0, np.int64), np.zeros((0, classes)))
    truth, probabilities = cohorts.get(FITTED_ON, nobody)
    fitted = Calibration("none", reason="not asked for")
    if calibration == "temperature":
        fitted = fit_temperature(truth, probabilities)
    if classes != 2:
        return Confidence(fitted, Threshold(threshold_rule, reason="there are more than two labels"))
    threshold = choose_threshold(truth == 1, probabilities[:, 1], threshold_rule, wanted_sensitivity)
    if threshold.value is not None and fitted.temperature is not None:
        raw = np.array([[1 - threshold.value, threshold.value]])
        threshold = replace(threshold, calibrated=float(scale_probabilities(raw, fitted.temperature)[0, 1]))
    return Confidence(fitted, threshold)


def _describe_delong(labels: Sequence[str], truth: Indices, probabilities: Array) -> dict[str, Any]:
    """Label → its AUC against the rest, by DeLong; of two labels the positive one only."""
    wanted = [1] if len(labels) == 2 else range(len(labels))
    return {labels[number]: estimate_auc(truth == number, probabilities[:, number]).to_json() for number in wanted}
