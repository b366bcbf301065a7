"""The decision threshold against brute force and scikit-learn; Wilson's interval against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import precision_score, recall_score, roc_curve

from components.statistics.threshold import choose_threshold, judge_threshold, wilson_interval


def sample(patients: int = 80, seed: int = 0):
    random = np.random.default_rng(seed)
    positive = random.random(patients) < 0.4
    return positive, np.clip(np.round(0.5 + 0.2 * positive + random.normal(0, 0.2, patients), 2), 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_youden_is_the_best_of_the_roc_curve(seed: int) -> None:
    positive, scores = sample(seed=seed)
    fpr, tpr, _ = roc_curve(positive, scores)
    found = judge_threshold(positive, scores, choose_threshold(positive, scores).value)
    assert found["sensitivity"] + found["specificity"] - 1 == pytest.approx((tpr - fpr).max())


def test_of_equally_good_thresholds_the_more_sensitive_one() -> None:
    positive = np.array([False, True, False, True])
    assert choose_threshold(positive, np.array([0.1, 0.2, 0.3, 0.4])).value == pytest.approx(0.15)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1))
def test_wanted_sensitivity_is_kept_and_no_higher_threshold_keeps_it(seed: int, wanted: float) -> None:
    positive, scores = sample(30, seed)
    if positive.all() or not positive.any():
        return
    value = choose_threshold(positive, scores, "sensitivity", wanted).value
    assert (scores[positive] >= value).mean() >= wanted - 1e-9
    higher = scores[scores >= value].min() + 1e-6
    assert (scores[positive] >= higher).mean() < wanted or not (scores >= higher).any()


def test_half_asks_nobody() -> None:
    found = choose_threshold(np.zeros(0, bool), np.zeros(0), "half")
    assert (found.value, found.chosen_on) == (0.5, "")


@pytest.mark.parametrize(
    ("positive", "scores", "reason"),
    [
        ([], [], "no validation patient"),
        ([1], [0.5], "one label only"),
        ([1, 1], [0.5, 0.6], "one label only"),
        ([1, 0], [0.5, 0.5], "equal"),
    ],
)
def test_without_a_choice_there_is_a_reason(positive, scores, reason) -> None:
    found = choose_threshold(np.array(positive, bool), np.array(scores, float))
    assert found.value is None
    assert reason in found.reason


def test_judging_agrees_with_scikit_learn() -> None:
    positive, scores = sample()
    called = scores >= 0.6
    found = judge_threshold(positive, scores, 0.6)
    assert found["sensitivity"] == pytest.approx(recall_score(positive, called))
    assert found["specificity"] == pytest.approx(recall_score(~positive, ~called))
    assert found["positive_predictive_value"] == pytest.approx(precision_score(positive, called))
    assert found["negative_predictive_value"] == pytest.approx(precision_score(~positive, ~called))
    counts = [found[name] for name in ("true_positive", "false_negative", "false_positive", "true_negative")]
    assert sum(counts) == len(scores)


def test_nothing_to_judge_is_none_and_not_nan() -> None:
    found = judge_threshold(np.array([True, True]), np.array([0.1, 0.2]), 0.5)
    assert (found["specificity"], found["specificity_ci95"]) == (None, None)
    assert (found["positive_predictive_value"], found["positive_predictive_value_ci95"]) == (None, None)
    assert found["sensitivity"] == 0


@pytest.mark.parametrize(("hits", "of"), [(0, 5), (5, 5), (3, 10), (81, 263), (1, 1)])
def test_wilson_agrees_with_scipy(hits: int, of: int) -> None:
    theirs = binomtest(hits, of).proportion_ci(method="wilson")
    assert wilson_interval(hits, of) == pytest.approx([theirs.low, theirs.high])


def test_wilson_as_published() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 857), table I, method 3: 81 of 263 and 15 of 148.
    assert wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx([0.0624, 0.1605], abs=5e-5)
