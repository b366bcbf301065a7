"""Temperature scaling and calibration errors against scikit-learn, and where there is nothing to fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss

from components.statistics.calibration import HIGHEST, LOWEST, fit_temperature, scale_probabilities
from components.statistics.metrics import adaptive_bins, measure


def cohort(patients: int, classes: int, overconfidence: float, seed: int = 0):
    """Labels drawn from softmax(z); the probabilities given are softmax(overconfidence * z)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (patients, classes))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(classes, p=row) for row in truth])
    wrong = np.exp(overconfidence * logits)
    return labels, wrong / wrong.sum(axis=1, keepdims=True)


class Fixed(ClassifierMixin, BaseEstimator):
    """A classifier whose decision values are its input."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        self.n_features_in_ = x.shape[1]
        return self

    def decision_function(self, x):
        # of two classes scikit-learn takes one value v for the logits (-v, v)
        return (x[:, 1] - x[:, 0]) / 2 if x.shape[1] == 2 else x

    def predict(self, x):
        return self.classes_[x.argmax(axis=1)]


@pytest.mark.parametrize("classes", [2, 3])
def test_temperature_agrees_with_scikit_learn(classes: int) -> None:
    labels, probabilities = cohort(400, classes, 3.0)
    logits = np.log(probabilities)
    fixed = FrozenEstimator(Fixed().fit(logits, labels))
    theirs = CalibratedClassifierCV(fixed, method="temperature", ensemble=False).fit(logits, labels)
    expected = 1 / theirs.calibrated_classifiers_[0].calibrators[0].beta_
    mine = fit_temperature(labels, probabilities)
    assert mine.likelihood_temperature == pytest.approx(expected, rel=1e-3)
    assert mine.temperature == pytest.approx(expected, rel=0.03)
    ours = scale_probabilities(probabilities, mine.likelihood_temperature)
    assert ours == pytest.approx(theirs.predict_proba(logits), abs=1e-3)


@pytest.mark.parametrize("overconfidence", [0.4, 1.0, 4.0])
def test_the_temperature_undoes_what_was_done(overconfidence: float) -> None:
    labels, probabilities = cohort(3000, 2, overconfidence)
    assert fit_temperature(labels, probabilities).temperature == pytest.approx(overconfidence, rel=0.1)


def test_calibrating_on_validation_helps_on_test() -> None:
    fitted = fit_temperature(*cohort(200, 2, 4.0, seed=1))
    labels, probabilities = cohort(2000, 2, 4.0, seed=2)
    before, after = measure(labels, probabilities), measure(labels, fitted.apply(probabilities))
    assert after["ece"] < before["ece"] / 2
    assert after["ece_adaptive"] < before["ece_adaptive"] / 2
    assert after["log_loss"] < before["log_loss"]
    assert after["auc"] == pytest.approx(before["auc"])
    assert after["accuracy"] == before["accuracy"]
    assert fitted.nll_after < fitted.nll_before


def test_the_likelihood_is_what_is_reported() -> None:
    labels, probabilities = cohort(50, 3, 2.0)
    fitted = fit_temperature(labels, probabilities)
    assert fitted.nll_before == pytest.approx(log_loss(labels, probabilities))
    assert fitted.nll_after == pytest.approx(log_loss(labels, fitted.apply(probabilities)))


def test_few_patients_all_right_stay_bounded_and_it_is_said() -> None:
    labels = np.array([0, 1, 0, 1])
    fitted = fit_temperature(labels, np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]))
    assert fitted.at_bound
    assert fitted.likelihood_temperature == pytest.approx(LOWEST)
    assert 0.4 < fitted.temperature < 1


def test_all_wrong_goes_to_the_other_bound() -> None:
    labels = np.array([1, 0] * 20)
    fitted = fit_temperature(labels, np.array([[0.9, 0.1], [0.1, 0.9]] * 20))
    assert fitted.at_bound
    assert fitted.likelihood_temperature == pytest.approx(HIGHEST)
    assert 1 < fitted.temperature < HIGHEST


def test_scores_that_are_all_one_half_keep_a_temperature_of_one() -> None:
    fitted = fit_temperature(np.array([0, 1, 1]), np.full((3, 2), 0.5))
    assert fitted.temperature == pytest.approx(1.0)
    assert fitted.apply(np.full((3, 2), 0.5)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("labels", "reason"), [([], "no validation patient"), ([1], "one label only"), ([1, 1, 1], "one label only")]
)
def test_nothing_to_fit_gives_a_reason(labels: list[int], reason: str) -> None:
    fitted = fit_temperature(np.array(labels, int), np.full((len(labels), 2), 0.5))
    assert fitted.temperature is None
    assert reason in fitted.reason
    assert fitted.apply(np.array([[0.5, 0.5]])) is None


def test_certain_probabilities_stay_finite() -> None:
    assert scale_probabilities(np.array([[1.0, 0.0], [0.0, 1.0]]), 5.0) == pytest.approx(np.eye(2))
    fitted = fit_temperature(np.array([0, 1, 1]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    assert math.isfinite(fitted.temperature)
    assert math.isfinite(fitted.nll_before)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), min_size=1, max_size=8), st.floats(LOWEST, HIGHEST)
)
def test_scaling_keeps_the_order_and_sums_to_one(rows: list[list[float]], temperature: float) -> None:
    raw = np.array(rows)
    scaled = scale_probabilities(raw, temperature)
    assert scaled.sum(axis=1) == pytest.approx(1.0)
    assert (np.take_along_axis(scaled, raw.argmax(axis=1)[:, None], axis=1)[:, 0] >= scaled.max(axis=1) - 1e-12).all()
    assert scale_probabilities(scaled, 1 / temperature) == pytest.approx(raw / raw.sum(axis=1, keepdims=True), abs=1e-6)


def test_ece_agrees_with_scikit_learns_curve() -> None:
    labels, probabilities = cohort(500, 3, 2.0)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    observed, predicted = calibration_curve(right, confidence, n_bins=10)
    counts = np.histogram(confidence, bins=np.linspace(0, 1, 11))[0]
    expected = (np.abs(observed - predicted) * counts[counts > 0]).sum() / len(labels)
    assert measure(labels, probabilities)["ece"] == pytest.approx(expected)


def test_adaptive_ece_agrees_with_scikit_learns_quantile_curve() -> None:
    labels, probabilities = cohort(500, 2, 2.0)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    observed, predicted = calibration_curve(right, confidence, n_bins=10, strategy="quantile")
    assert measure(labels, probabilities)["ece_adaptive"] == pytest.approx(np.abs(observed - predicted).mean())


def test_brier_agrees_with_scikit_learn() -> None:
    labels, probabilities = cohort(100, 2, 2.0)
    assert measure(labels, probabilities)["brier"] == pytest.approx(brier_score_loss(labels, probabilities[:, 1]))


def test_adaptive_bins_hold_equally_many_and_never_part_ties() -> None:
    assert np.bincount(adaptive_bins(np.random.default_rng(0).random(70))).tolist() == [7] * 10
    assert len(set(adaptive_bins(np.full(9, 0.7)).tolist())) == 1
    assert adaptive_bins(np.zeros(0)).tolist() == []
