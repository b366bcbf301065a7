"""The gate, in both directions, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.evaluate.gate import check_gate, judge, read_previous
from components.records.errors import InputError

METRICS = {"test": {"auc": 0.8, "log_loss": 0.5}, "val": {"auc": None}}


@pytest.mark.parametrize(
    ("metric", "threshold", "previous", "blessed", "reason"),
    [
        ("auc", 0.0, None, True, "test auc 0.8000 with no threshold to beat"),
        ("auc", 0.7, None, True, "test auc 0.8000 is above the threshold 0.7"),
        ("auc", 0.8, None, False, "test auc 0.8000 is not above the threshold 0.8"),
        ("auc", 0.7, 0.75, True, "test auc 0.8000 is above the threshold 0.7 and is above the previous model's 0.7500"),
        ("auc", 0.0, 0.8, False, "test auc 0.8000 is not above the previous model's 0.8000"),
        ("auc", 0.0, 0.9, False, "test auc 0.8000 is not above the previous model's 0.9000"),
        ("log_loss", 0.0, None, True, "test log_loss 0.5000 with no threshold to beat"),
        ("log_loss", 0.6, None, True, "test log_loss 0.5000 is below the threshold 0.6"),
        ("log_loss", 0.4, None, False, "test log_loss 0.5000 is not below the threshold 0.4"),
        ("log_loss", 0.0, 0.6, True, "test log_loss 0.5000 is below the previous model's 0.6000"),
        ("log_loss", 0.0, 0.4, False, "test log_loss 0.5000 is not below the previous model's 0.4000"),
    ],
)
def test_verdicts(metric: str, threshold: float, previous: float | None, blessed: bool, reason: str) -> None:
    before = None if previous is None else {"test": {metric: previous}}
    verdict = judge(METRICS, metric=metric, threshold=threshold, previous=before)
    assert (verdict.blessed, verdict.reason) == (blessed, reason)
    assert verdict.to_json()["previous"] == previous


def test_an_undefined_metric_is_never_blessed() -> None:
    assert judge(METRICS, split="val").reason == "val auc is not defined"
    assert not judge(METRICS, split="val").blessed
    assert not judge(METRICS, split="train").blessed
    assert not judge({"test": {"auc": float("nan")}}).blessed


def test_a_previous_model_without_the_metric_does_not_stand_in_the_way() -> None:
    verdict = judge(METRICS, previous={"test": {"auc": None}})
    assert verdict.blessed
    assert verdict.reason == "test auc 0.8000 has no previous value to beat"


def test_previous_metrics_from_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    assert read_previous(str(tmp_path)) == read_previous(str(tmp_path / "metrics.json")) == METRICS
    assert read_previous("") is None


def test_previous_metrics_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.json: no such file"):
        read_previous(str(tmp_path))
    (tmp_path / "metrics.json").write_text("[1]")
    with pytest.raises(InputError, match=r"holds no metrics of a split; give the metrics.json of an earlier run"):
        read_previous(str(tmp_path))
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_previous(str(tmp_path))


def test_parameters_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="gate_metric: unknown metric 'aux'; use one of accuracy"):
        check_gate("aux", "test", 0.0)
    with pytest.raises(InputError, match="gate_split: unknown split 'tset'; use one of train, val, test"):
        check_gate("auc", "tset", 0.0)
    with pytest.raises(InputError, match="gate_threshold: nan is not a finite number"):
        check_gate("auc", "test", float("nan"))
