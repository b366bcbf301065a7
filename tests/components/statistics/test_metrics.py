"""Metrics against scikit-learn and against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from components.statistics.curves import MOST_POINTS, calibration_bins, draw_curves, roc_curve
from components.statistics.metrics import METRICS, bootstrap_intervals, confidence_bins, describe_split, measure


def sample(patients: int, classes: int, seed: int = 0, digits: int = 2):
    """Labels and probabilities with ties, every class present."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, patients - classes)])
    raw = random.random((patients, classes)) + 0.8 * np.eye(classes)[labels]
    raw = np.round(raw, digits) + 0.01
    return labels, raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_two_classes_agree_with_scikit_learn(seed: int) -> None:
    labels, probabilities = sample(60, 2, seed)
    found, called = measure(labels, probabilities), probabilities.argmax(axis=1)
    expected = {
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "auc": sk.roc_auc_score(labels, probabilities[:, 1]),
        "precision": sk.precision_score(labels, called),
        "recall": sk.recall_score(labels, called),
        "f1": sk.f1_score(labels, called),
        "log_loss": sk.log_loss(labels, probabilities),
        "brier": sk.brier_score_loss(labels, probabilities[:, 1]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_more_classes_agree_with_scikit_learn(seed: int) -> None:
    labels, probabilities = sample(80, 4, seed)
    found, called = measure(labels, probabilities), probabilities.argmax(axis=1)
    expected = {
        "accuracy": sk.accuracy_score(labels, called),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called),
        "auc": sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "precision": sk.precision_score(labels, called, average="macro", zero_division=0),
        "recall": sk.recall_score(labels, called, average="macro"),
        "f1": sk.f1_score(labels, called, average="macro"),
        "log_loss": sk.log_loss(labels, probabilities),
        "brier": float(((probabilities - np.eye(4)[labels]) ** 2).sum(axis=1).mean()),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_strip_metric_of_knowing_nothing_is_ln_2() -> None:
    labels = np.array([0] * 9 + [1])
    assert measure(labels, np.full((10, 2), 0.5))["weighted_log_loss"] == pytest.approx(math.log(2))


def test_strip_metric_weighs_labels_alike_and_clips_as_kaggle_does() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.8, 0.2], [0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
    of_0 = -(math.log(0.8) + math.log(0.5) + math.log(0.9)) / 3
    of_1 = -math.log(1e-15)
    found = measure(labels, probabilities)
    assert found["weighted_log_loss"] == pytest.approx((of_0 + of_1) / 2)
    assert found["log_loss"] == pytest.approx((3 * of_0 + of_1) / 4)


def test_rows_that_do_not_sum_to_1_are_rescaled() -> None:
    labels = np.array([0, 1])
    assert measure(labels, np.array([[2.0, 2.0], [1.0, 3.0]])) == measure(labels, np.array([[0.5, 0.5], [0.25, 0.75]]))


def test_calibration_error_by_hand() -> None:
    # Bin (0.6, 0.7]: confidence 0.65, one of two right. Bin (0.9, 1]: confidence 0.95, two of two right.
    probabilities = np.array([[0.65, 0.35], [0.35, 0.65], [0.95, 0.05], [0.05, 0.95]])
    found = measure(np.array([0, 0, 0, 1]), probabilities)
    assert found["ece"] == pytest.approx(0.5 * abs(0.5 - 0.65) + 0.5 * abs(1 - 0.95))
    assert confidence_bins(np.array([0.0, 0.1, 0.1001, 0.5, 0.9, 0.91, 1.0])).tolist() == [0, 0, 1, 4, 8, 9, 9]


def test_undefined_is_none_and_never_nan() -> None:
    one_class = measure(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert {name for name, value in one_class.items() if value is None} == {"auc", "precision", "recall", "f1"}
    assert measure(np.zeros(0, int), np.zeros((0, 2))) == dict.fromkeys(METRICS)
    described = describe_split(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]), samples=20)
    assert described["n_patients"] == 2
    assert described["auc_ci95"] is None
    assert described["ci95"]["auc"] is None
    assert described["ci95"]["accuracy"] is not None


def test_nobody_called_positive_has_precision_0() -> None:
    found = measure(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)


def test_a_missing_class_is_left_out_of_macro_means() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1]])
    found = measure(labels, probabilities)
    assert found["recall"] == pytest.approx(sk.recall_score(labels, probabilities.argmax(axis=1), average="macro"))
    assert found["auc"] == pytest.approx((0.875 + 0.875) / 2)


def test_intervals_repeat_and_follow_the_seed() -> None:
    labels, probabilities = sample(40, 2)
    first = bootstrap_intervals(labels, probabilities, 200, seed=3)
    assert first == bootstrap_intervals(labels, probabilities, 200, seed=3)
    assert first != bootstrap_intervals(labels, probabilities, 200, seed=4)
    found = measure(labels, probabilities)
    for name, interval in first.items():
        assert interval is not None
        assert interval[0] <= interval[1]
        if name != "ece":  # its resampling is biased upwards
            assert interval[0] <= found[name] <= interval[1]


def test_draws_in_pieces_give_as_many_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    import components.statistics.metrics as module

    labels, probabilities = sample(30, 2)
    whole = bootstrap_intervals(labels, probabilities, 1000)
    drawn = []
    monkeypatch.setattr(module, "_CHUNK_VALUES", 30 * 64)
    monkeypatch.setattr(module, "_interval", lambda values: drawn.append(len(values)) or [values.min(), values.max()])
    bootstrap_intervals(labels, probabilities, 1000)
    assert set(drawn) == {1000}
    monkeypatch.undo()
    monkeypatch.setattr(module, "_CHUNK_VALUES", 30 * 64)
    pieces = bootstrap_intervals(labels, probabilities, 1000)
    assert pieces["log_loss"] == pytest.approx(whole["log_loss"], abs=0.03)


def test_every_label_keeps_its_number_in_every_draw() -> None:
    labels = np.array([0] * 50 + [1])
    probabilities = np.column_stack([np.linspace(0.9, 0.6, 51), np.linspace(0.1, 0.4, 51)])
    assert bootstrap_intervals(labels, probabilities, 100)["auc"] == [1.0, 1.0]
    assert bootstrap_intervals(labels, probabilities, 100)["recall"] == [0.0, 0.0]


def test_no_samples_no_intervals() -> None:
    assert bootstrap_intervals(*sample(10, 2), 0) == dict.fromkeys(METRICS)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """60 cohorts of scores N(0, 1) and N(1, 1): the true AUC is Φ(1/√2) = 0.7602."""
    truth, hits = 0.76025, 0
    labels = np.arange(80) % 2
    for cohort in range(60):
        scores = np.random.default_rng(cohort).normal(labels, 1.0)
        p = 1 / (1 + np.exp(-scores))
        interval = bootstrap_intervals(labels, np.column_stack([1 - p, p]), 300, seed=cohort)["auc"]
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    assert 51 <= hits <= 60


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 40), st.integers(2, 4), st.integers(0, 1000))
def test_metrics_do_not_depend_on_the_order_of_patients(patients: int, classes: int, seed: int) -> None:
    labels, probabilities = sample(max(patients, classes), classes, seed, digits=1)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert measure(labels[order], probabilities[order]) == pytest.approx(measure(labels, probabilities))


def test_roc_curve_agrees_with_scikit_learn_and_is_finite() -> None:
    labels, probabilities = sample(60, 2)
    found = roc_curve(labels, probabilities)
    fpr, tpr, threshold = sk.roc_curve(labels, probabilities[:, 1], drop_intermediate=False)
    assert found["fpr"] == pytest.approx(fpr)
    assert found["tpr"] == pytest.approx(tpr)
    assert found["threshold"][1:] == pytest.approx(threshold[1:])
    assert found["threshold"][0] == 1.0


def test_a_long_roc_curve_is_thinned_and_keeps_its_ends() -> None:
    labels, probabilities = sample(3000, 2, digits=6)
    found = roc_curve(labels, probabilities)
    assert len(found["fpr"]) == len(found["tpr"]) == len(found["threshold"]) <= MOST_POINTS
    assert (found["fpr"][0], found["tpr"][0], found["fpr"][-1], found["tpr"][-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(found["tpr"], found["fpr"]) == pytest.approx(
        sk.roc_auc_score(labels, probabilities[:, 1]), abs=2e-3
    )


def test_roc_of_one_class_is_empty_and_of_three_is_micro() -> None:
    assert roc_curve(np.array([1, 1]), np.array([[0.2, 0.8], [0.4, 0.6]]))["fpr"] == []
    assert roc_curve(np.zeros(0, int), np.zeros((0, 2)))["fpr"] == []
    labels, probabilities = sample(50, 3)
    found = roc_curve(labels, probabilities)
    assert np.trapezoid(found["tpr"], found["fpr"]) == pytest.approx(
        sk.roc_auc_score(np.eye(3)[labels].ravel(), probabilities.ravel())
    )


def test_confusion_counts_truth_by_row() -> None:
    curves = draw_curves("test", ("a", "b"), np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]))
    assert curves.confusion == [[1, 1], [0, 1]]


def test_calibration_bins_by_hand() -> None:
    found = calibration_bins(np.array([0, 1, 1]), np.array([[0.85, 0.15], [0.83, 0.17], [0.1, 0.9]]))
    assert found == [
        {"predicted": pytest.approx(0.16), "observed": 0.5, "patients": 2},
        {"predicted": pytest.approx(0.9), "observed": 1.0, "patients": 1},
    ]
    assert calibration_bins(np.zeros(0, int), np.zeros((0, 2))) == []
