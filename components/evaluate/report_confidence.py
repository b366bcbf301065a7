"""What the report says of how sure the model may be: calibration, decision threshold, abstention, DeLong."""

from __future__ import annotations

from typing import Any

from components.statistics.charts import draw_abstention, draw_calibration
from components.statistics.curves import Curves

_ERRORS = (
    ("log_loss", "Log loss", "mean -ln of the true label's probability"),
    ("brier", "Brier score", "mean squared error of the probability"),
    ("ece", "Calibration error", "ECE, 10 bins of equal width"),
    ("ece_adaptive", "Adaptive calibration error", "10 bins of equally many patients"),
)
_JUDGED = (
    ("sensitivity", "Sensitivity", "of the positive patients, how many were called so"),
    ("specificity", "Specificity", "of the negative patients, how many were called so"),
    ("positive_predictive_value", "Positive predictive value", "of those called positive, how many are"),
    ("negative_predictive_value", "Negative predictive value", "of those called negative, how many are"),
)
_RULES = {
    "youden": "the largest sensitivity + specificity - 1",
    "sensitivity": "the highest that keeps the wanted sensitivity",
    "half": "fixed at 0.5",
}


def describe_confidence(metrics: dict[str, Any], curves: Curves) -> dict[str, Any]:
    """Plots and tables of the shown split, for the template."""
    section = metrics.get(curves.split) or {}
    calibration, threshold = metrics["calibration"], metrics["threshold"]
    abstention = section.get("abstention") or {}
    return {
        "calibration": calibration,
        "reliability": draw_calibration(curves),
        "errors": _list_errors(section),
        "threshold": {**threshold, "rule_text": _RULES[threshold["rule"]]},
        "judged": _list_judged(section.get("at_threshold")),
        "counts": section.get("at_threshold"),
        "abstention": abstention,
        "abstention_plot": draw_abstention(curves),
        "delong": section.get("auc_delong") or {},
        "comparison": metrics.get("comparison"),
    }


def _list_errors(section: dict[str, Any]) -> list[dict[str, Any]]:
    calibrated = section.get("calibrated")
    return [
        {
            "name": name,
            "meaning": meaning,
            "before": (section.get(key), (section.get("ci95") or {}).get(key)),
            "after": (calibrated[key], calibrated["ci95"][key]) if calibrated else None,
        }
        for key, name, meaning in _ERRORS
    ]


def _list_judged(judged: dict[str, Any] | None) -> list[dict[str, Any]]:
    if judged is None:
        return []
    return [
        {"name": name, "meaning": meaning, "value": judged[key], "ci": judged[f"{key}_ci95"]}
        for key, name, meaning in _JUDGED
    ]
