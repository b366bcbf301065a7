"""Risk against coverage, by hand and by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from components.statistics.abstention import describe_abstention, risk_by_coverage


def two(probabilities: list[float]) -> np.ndarray:
    return np.stack([1 - np.array(probabilities), np.array(probabilities)], axis=1)


def test_by_hand() -> None:
    labels = np.array([1, 0, 0, 1])
    found = describe_abstention(labels, two([0.9, 0.2, 0.7, 0.6]))  # surest first: right, right, wrong, right
    assert found["curve"] == {"coverage": [0.25, 0.5, 0.75, 1.0], "risk": pytest.approx([0, 0, 1 / 3, 1 / 4])}
    assert found["aurc"] == pytest.approx((1 / 3 + 1 / 4) / 4)
    assert found["excess_aurc"] == pytest.approx((1 / 3 + 1 / 4) / 4 - 1 / 16)
    assert found["risk_at"]["0.5"] == 0
    assert found["risk_at"]["1"] == 0.25


def test_ties_count_as_the_mean_of_all_their_orders() -> None:
    confidence, correct = np.array([0.9, 0.7, 0.7, 0.7, 0.6]), np.array([1, 0, 1, 1, 0])
    orders = [(0, *middle, 4) for middle in itertools.permutations((1, 2, 3))]
    risks = [np.cumsum(1 - correct[list(order)]) / np.arange(1, 6) for order in orders]
    assert risk_by_coverage(confidence, correct) == pytest.approx(np.mean(risks, axis=0))


def test_equal_scores_have_the_same_risk_everywhere() -> None:
    found = describe_abstention(np.array([0, 1, 0, 0]), two([0.4] * 4))
    assert set(found["curve"]["risk"]) == {0.25}


def test_more_than_two_labels_and_many_patients_stay_thin() -> None:
    random = np.random.default_rng(0)
    found = describe_abstention(random.integers(0, 3, 5000), random.dirichlet([1, 1, 1], 5000))
    assert len(found["curve"]["risk"]) == 100
    assert found["aurc"] == pytest.approx(2 / 3, abs=0.05)


@pytest.mark.parametrize("patients", [0, 1])
def test_hardly_any_patient(patients: int) -> None:
    found = describe_abstention(np.zeros(patients, int), np.full((patients, 2), 0.5))
    assert found["aurc"] == (0.0 if patients else None)
    assert bool(found["reason"]) is not bool(patients)
