"""What is gained by leaving the least sure patients to a human: risk against coverage."""

from __future__ import annotations

from typing import Any

import numpy as np

from components.statistics.metrics import Array, Indices

COVERAGES = (0.5, 0.7, 0.8, 0.9, 1.0)
_MOST_POINTS = 100


def risk_by_coverage(confidence: Array, correct: Array) -> Array:
    """Share of wrong calls among the k surest patients, for k = 1 … n (El-Yaniv & Wiener 2010).

    Patients who are equally sure stand in no order: each of them counts as the mean of them all.

    Args:
        confidence: probability of the called label, [patients].
        correct: whether the call is right, [patients].

    Returns:
        [patients]; entry k - 1 is the risk at coverage k / n.
    """
    _, block = np.unique(-np.asarray(confidence), return_inverse=True)
    wrong = 1.0 - np.asarray(correct, np.float64)
    means = np.bincount(block, wrong) / np.bincount(block)
    expected = means[np.sort(block)]
    return np.asarray(np.cumsum(expected) / np.arange(1, len(expected) + 1), np.float64)


def describe_abstention(labels: Indices, probabilities: Array) -> dict[str, Any]:
    """AURC, what of it a perfect order of the same calls would leave, risk at some coverages, and the curve.

    `aurc` is the mean of the risk over all coverages (Geifman & El-Yaniv 2017), `excess_aurc` what it lies above the
    same calls in the best order (Geifman et al. 2019). Without patients every value is None.
    """
    patients = len(labels)
    if not patients:
        empty: dict[str, list[float]] = {"coverage": [], "risk": []}
        return {"aurc": None, "excess_aurc": None, "risk_at": None, "curve": empty, "reason": "there are no patients"}
    correct = probabilities.argmax(axis=1) == labels
    risk = risk_by_coverage(probabilities.max(axis=1), correct)
    best = risk_by_coverage(correct.astype(np.float64), correct)
    keep = np.unique(np.linspace(0, patients - 1, min(patients, _MOST_POINTS)).round().astype(np.int64))
    return {
        "aurc": float(risk.mean()),
        "excess_aurc": max(0.0, float(risk.mean() - best.mean())),
        "risk_at": {f"{share:g}": float(risk[max(1, round(share * patients)) - 1]) for share in COVERAGES},
        "curve": {"coverage": ((keep + 1) / patients).tolist(), "risk": risk[keep].tolist()},
        "reason": "",
    }
