"""DeLong against the definition over all pairs, and the bootstrap against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, rankdata
from sklearn.metrics import roc_auc_score

from components.statistics.delong import compare_aucs, delong_covariance, estimate_auc, midranks
from components.statistics.metrics import bootstrap_intervals


def sample(positives: int, negatives: int, digits: int, seed: int, models: int = 2):
    random = np.random.default_rng(seed)
    positive = np.array([True] * positives + [False] * negatives)
    shared = random.normal(0, 1, len(positive))
    scores = [np.round(positive * 0.8 + shared + random.normal(0, 0.7, len(positive)), digits) for _ in range(models)]
    order = random.permutation(len(positive))
    return positive[order], [values[order] for values in scores]


def by_definition(positive, scores):
    """DeLong et al. 1988, eq. 3–6, pair by pair."""
    m, n = int(positive.sum()), int((~positive).sum())
    v10, v01 = np.zeros((len(scores), m)), np.zeros((len(scores), n))
    for model, values in enumerate(scores):
        for i, x in enumerate(values[positive]):
            for j, y in enumerate(values[~positive]):
                psi = 1.0 if x > y else 0.5 if x == y else 0.0
                v10[model, i] += psi / n
                v01[model, j] += psi / m
    theta = v10.mean(axis=1)
    s10 = sum(np.outer(v10[:, i] - theta, v10[:, i] - theta) for i in range(m)) / (m - 1)
    s01 = sum(np.outer(v01[:, j] - theta, v01[:, j] - theta) for j in range(n)) / (n - 1)
    return theta, s10 / m + s01 / n


@pytest.mark.parametrize(("positives", "negatives", "digits"), [(2, 2, 3), (7, 12, 0), (25, 40, 1), (40, 11, 6)])
def test_the_fast_algorithm_gives_what_the_definition_gives(positives: int, negatives: int, digits: int) -> None:
    positive, scores = sample(positives, negatives, digits, seed=positives, models=3)
    expected = by_definition(positive, scores)
    aucs, covariance = delong_covariance(positive, scores)
    assert aucs == pytest.approx(expected[0])
    assert aucs == pytest.approx([roc_auc_score(positive, values) for values in scores])
    assert covariance == pytest.approx(expected[1], abs=1e-15)


def test_a_case_worked_by_hand() -> None:
    # Positives 3, 2; negatives 1, 2.5: pairs 1, 1, 1, 0. V10 = (1, ½), V01 = (1, ½): S10 = S01 = ⅛, variance ⅛.
    positive = np.array([True, True, False, False])
    found = estimate_auc(positive, np.array([3, 2, 1, 2.5]))
    assert found.auc == 0.75
    assert found.standard_error == pytest.approx(math.sqrt(1 / 8))
    assert found.ci95 == pytest.approx((0.75 - 1.959964 * math.sqrt(1 / 8), 1.0), abs=1e-6)


def test_comparing_two_models() -> None:
    positive, (first, second) = sample(30, 30, 3, seed=1)
    theta, covariance = by_definition(positive, [first, second])
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = compare_aucs(positive, first, second)
    z = (theta[0] - theta[1]) / error
    assert (found.difference, found.standard_error, found.z) == pytest.approx((theta[0] - theta[1], error, z))
    assert found.p == pytest.approx(2 * norm.sf(abs(z)))
    assert found.ci95 == pytest.approx((found.difference - 1.959964 * error, found.difference + 1.959964 * error))
    turned = compare_aucs(positive, second, first)
    assert (turned.difference, turned.p) == pytest.approx((-found.difference, found.p))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random, truth = np.random.default_rng(0), norm.cdf(1 / math.sqrt(2))
    positive = np.array([True] * 40 + [False] * 40)
    hits = 0
    for _ in range(400):
        low, high = estimate_auc(positive, positive + random.normal(0, 1, 80)).ci95
        hits += low <= truth <= high
    assert 0.91 <= hits / 400 <= 0.98


def test_midranks_are_scipys() -> None:
    values = np.random.default_rng(0).integers(0, 9, 50).astype(float)
    assert midranks(values).tolist() == rankdata(values).tolist()


@pytest.mark.parametrize(
    ("positive", "scores", "auc", "reason"),
    [
        ([], [], None, "no patients"),
        ([1], [0.5], None, "one label only"),
        ([1, 1, 1], [0.1, 0.5, 0.7], None, "one label only"),
        ([1, 0, 0], [0.9, 0.5, 0.7], 1.0, "one patient only"),
        ([1, 1, 0, 0], [0.5] * 4, 0.5, "all scores are equal"),
        ([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], 1.0, "perfectly apart"),
        ([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1], 0.0, "perfectly apart"),
    ],
)
def test_where_there_is_no_interval_there_is_a_reason(positive, scores, auc, reason) -> None:
    found = estimate_auc(np.array(positive, bool), np.array(scores, float))
    assert (found.auc, found.ci95, found.standard_error) == (auc, None, None)
    assert reason in found.reason
    compared = compare_aucs(np.array(positive, bool), np.array(scores, float), np.array(scores, float))
    assert compared.p is None
    assert compared.reason


def test_the_bootstrap_agrees_with_scipys() -> None:
    positive, (scores, _) = sample(40, 60, 2, seed=5)
    probabilities = np.stack([1 - scores, scores], axis=1)
    probabilities = np.exp(probabilities) / np.exp(probabilities).sum(axis=1, keepdims=True)

    def auc(x, y):
        return float(((x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])).mean())

    theirs = bootstrap(
        (probabilities[positive, 1], probabilities[~positive, 1]), auc, vectorized=False, n_resamples=2000,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    mine = bootstrap_intervals(positive.astype(int), probabilities, samples=2000)["auc"]
    assert mine == pytest.approx([theirs.low, theirs.high], abs=0.012)
    delong = estimate_auc(positive, scores).ci95
    assert mine == pytest.approx(delong, abs=0.03)
