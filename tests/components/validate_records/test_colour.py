import numpy as np
import pytest

from components.validate_records.colour import Moments, compare_colours, merge_all, standardised_difference


def sample(mean, seed, count=40):
    return np.random.default_rng(seed).normal(mean, 10, (count, 6))


def test_moments_merge_to_those_of_all_values():
    values = sample(100, 0)
    merged = merge_all([Moments(), Moments.of(values[:7]), Moments.of(values[7:8]), Moments.of(values[8:])])
    assert merged.count == 40
    np.testing.assert_allclose(merged.mean, values.mean(axis=0))
    np.testing.assert_allclose(merged.squares, ((values - values.mean(axis=0)) ** 2).sum(axis=0))


def test_the_difference_is_cohens_d():
    one, other = sample(100, 1), sample(108, 2, 60)
    pooled = np.sqrt((39 * one.var(axis=0, ddof=1) + 59 * other.var(axis=0, ddof=1)) / 98)
    difference = standardised_difference(Moments.of(one), Moments.of(other))
    np.testing.assert_allclose(difference, (one.mean(axis=0) - other.mean(axis=0)) / pooled)
    assert standardised_difference(Moments.of(one[:1]), Moments.of(other)) is None


def test_a_center_is_held_against_the_others_in_train_and_a_split_against_train():
    groups = {
        ("train", "a"): Moments.of(sample(100, 3)),
        ("train", "b"): Moments.of(sample(105, 4)),
        ("test", "a"): Moments.of(sample(110, 5)),
    }
    checks, rows = compare_colours(groups, 0.8, fails=True)
    found = {row["name"]: row["largest_difference"] for row in rows}

    def largest(group, reference):
        return pytest.approx(np.abs(standardised_difference(group, reference)).max(), abs=1e-4)

    train = merge_all([groups["train", "a"], groups["train", "b"]])
    assert found["train"] is None
    assert found["test"] == largest(groups["test", "a"], train)
    assert found["a"] == largest(merge_all([groups["train", "a"], groups["test", "a"]]), groups["train", "b"])
    assert found["b"] == largest(groups["train", "b"], groups["train", "a"])
    assert [check.name for check in checks] == ["colour_drift_splits", "colour_drift_centers"]
