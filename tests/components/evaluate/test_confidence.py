"""Calibration, threshold, abstention and comparison as a whole evaluation writes them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.evaluate.evaluation import EvaluationParameters, evaluate
from components.records.errors import InputError

QUICK = EvaluationParameters(bootstrap_samples=20)


def unsure(sharpness: float, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)

    def probability(patient_id: str, label: str) -> list[float]:
        z = sharpness * (random.normal(0, 1) + (0.9 if label == "LAA" else -0.9))
        return [1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))]

    return probability


@pytest.fixture(scope="module")
def done(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sure")
    root = kit.write(folder / "tiled", kit.cohort(per_split=24))
    result = evaluate(root, "", str(folder / "out"), parameters=QUICK, predictor=kit.predictor(unsure(6)))
    return root, folder / "out", result


def test_metrics_are_raw_and_the_calibrated_ones_stand_beside_them(done: Any) -> None:
    _, out, _ = done
    metrics = json.loads((out / "metrics.json").read_text())
    test, fitted = metrics["test"], json.loads((out / "calibration.json").read_text())
    assert metrics["calibration"] == fitted
    assert fitted["temperature"] > 1.5
    assert fitted["patients"] == 24
    assert fitted["nll_after"] < fitted["nll_before"]
    assert set(test["calibrated"]) == {"log_loss", "weighted_log_loss", "brier", "ece", "ece_adaptive", "ci95"}
    assert test["calibrated"]["log_loss"] < test["log_loss"]
    rows = [row for row in csv.DictReader((out / "predictions.csv").open()) if row["split"] == "test"]
    truth = np.array([row["label"] == "LAA" for row in rows])
    for column, brier in (("prob_LAA", test["brier"]), ("calibrated_LAA", test["calibrated"]["brier"])):
        values = np.array([float(row[column]) for row in rows])
        assert ((values - truth) ** 2).mean() == pytest.approx(brier, rel=1e-5)
    raw, calibrated = (np.array([float(row[name]) for row in rows]) for name in ("prob_LAA", "calibrated_LAA"))
    logit = np.log(raw / (1 - raw)) / fitted["temperature"]
    assert calibrated == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)


def test_the_threshold_comes_from_validation_and_is_judged_on_test(done: Any) -> None:
    metrics = done[2].metrics
    chosen, test = metrics["threshold"], metrics["test"]["at_threshold"]
    assert (chosen["rule"], chosen["chosen_on"]) == ("youden", "val")
    rows = [row for row in csv.DictReader((done[1] / "predictions.csv").open()) if row["split"] == "test"]
    called = [float(row["prob_LAA"]) >= chosen["value"] for row in rows]
    assert called == [float(row["calibrated_LAA"]) >= chosen["calibrated"] for row in rows]
    positive = [row["label"] == "LAA" for row in rows]
    assert test["true_positive"] == sum(c and p for c, p in zip(called, positive, strict=True))
    low, high = test["sensitivity_ci95"]
    assert low < test["sensitivity"] < high


def test_nothing_of_test_reaches_temperature_or_threshold(kit: Any, done: Any, tmp_path: Path) -> None:
    def other_test(patient_id: str, label: str) -> list[float]:
        return [0.5, 0.5] if patient_id.startswith("test") else probability(patient_id, label)

    probability = unsure(6)
    again = evaluate(done[0], "", str(tmp_path), parameters=QUICK, predictor=kit.predictor(other_test))
    # the generator gives validation the same values only where it comes before test
    assert again.metrics["calibration"] == done[2].metrics["calibration"]
    assert again.metrics["threshold"] == done[2].metrics["threshold"]
    assert again.metrics["test"]["auc"] == 0.5
    assert again.metrics["test"]["auc_delong"]["LAA"]["reason"] == "all scores are equal"


def test_the_report_shows_all_of_it(done: Any) -> None:
    page = Path(done[2].report).read_text()
    for part in (
        "How sure it is", "Validation fitted a temperature of", "as the model says", "calibrated", "Decision threshold",
        "Sensitivity", "Wilson", "AURC", "AUC by DeLong", "Adaptive calibration error",
    ):  # fmt: skip
        assert part in page, part


def test_flat_metrics_carry_them(done: Any) -> None:
    assert {"test_calibrated_ece", "test_sensitivity", "test_specificity", "test_aurc"} <= set(done[2].flat_metrics())


def test_the_model_before_is_compared_on_the_same_patients(kit: Any, done: Any, tmp_path: Path) -> None:
    root, out, _ = done
    for previous in (str(out), str(out / "metrics.json")):
        parameters = EvaluationParameters(bootstrap_samples=20, previous_metrics=previous)
        result = evaluate(root, "", str(tmp_path), parameters=parameters, predictor=kit.predictor(unsure(6, seed=9)))
        found = result.metrics["comparison"]
        assert (found["split"], found["patients"]) == ("test", 24)
        assert found["second"] == pytest.approx(done[2].metrics["test"]["auc"])
        assert found["difference"] == pytest.approx(found["first"] - found["second"])
        assert 0 < found["p"] <= 1
    assert "The previous model" in Path(result.report).read_text()


def test_a_previous_model_without_predictions_gives_a_reason(kit: Any, done: Any, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text((done[1] / "metrics.json").read_text())
    parameters = EvaluationParameters(bootstrap_samples=0, previous_metrics=str(tmp_path))
    result = evaluate(done[0], "", str(tmp_path / "out"), parameters=parameters, predictor=kit.predictor())
    assert "no predictions.csv" in result.metrics["comparison"]["reason"]
    (tmp_path / "predictions.csv").write_text("patient_id,label,split,prob_x\na,LAA,test,0.5\n")
    result = evaluate(done[0], "", str(tmp_path / "out"), parameters=parameters, predictor=kit.predictor())
    assert "has no prob_LAA" in result.metrics["comparison"]["reason"]


def test_without_validation_there_is_no_calibration_and_it_is_said(kit: Any, tmp_path: Path) -> None:
    slides = [s for s in kit.cohort() if s.split != "val"]
    out = tmp_path / "out"
    done = evaluate(kit.write(tmp_path / "t", slides), "", str(out), parameters=QUICK, predictor=kit.predictor())
    assert done.metrics["calibration"]["temperature"] is None
    assert done.metrics["calibration"]["reason"] == "there is no validation patient"
    assert done.metrics["threshold"]["reason"] == "there is no validation patient"
    assert done.metrics["test"]["calibrated"] is None
    assert done.metrics["test"]["at_threshold"] is None
    assert (out / "predictions.csv").read_text().splitlines()[0] == "patient_id,label,split,prob_CE,prob_LAA"
    assert "No calibration: there is no validation patient" in Path(done.report).read_text()
    assert "NaN" not in (out / "metrics.json").read_text()


def test_one_test_patient_and_equal_scores_give_nulls(kit: Any, tmp_path: Path) -> None:
    slides = [s for s in kit.cohort() if s.split != "test" or s.patient_id == "test0"]
    root = kit.write(tmp_path / "t", slides)
    predictor = kit.predictor(lambda patient_id, label: [0.5, 0.5])
    done = evaluate(root, "", str(tmp_path / "out"), parameters=QUICK, predictor=predictor)
    assert done.metrics["calibration"]["temperature"] == pytest.approx(1.0)
    assert done.metrics["threshold"]["reason"] == "all validation scores are equal"
    assert done.metrics["test"]["auc_delong"]["LAA"]["auc"] is None
    assert "NaN" not in (tmp_path / "out" / "metrics.json").read_text()


def test_three_labels_calibrate_but_have_no_threshold(kit: Any, tmp_path: Path) -> None:
    root = kit.write(tmp_path / "t", kit.cohort(("a", "b", "c"), per_split=9))
    done = evaluate(root, "", str(tmp_path / "out"), parameters=QUICK, predictor=kit.predictor())
    assert done.metrics["calibration"]["temperature"] is not None
    assert done.metrics["threshold"]["reason"] == "there are more than two labels"
    assert set(done.metrics["test"]["auc_delong"]) == {"a", "b", "c"}
    assert "against the rest" in Path(done.report).read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"calibration": "platt"}, "unknown calibration 'platt'; use one of temperature, none"),
        ({"threshold_rule": "best"}, "unknown threshold_rule 'best'"),
        ({"wanted_sensitivity": 1.5}, "1.5 is no sensitivity"),
        ({"wanted_sensitivity": float("nan")}, "nan is no sensitivity"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        EvaluationParameters(**change).check()
    assert words in str(caught.value)


def test_calibration_can_be_left_out(kit: Any, done: Any, tmp_path: Path) -> None:
    parameters = EvaluationParameters(bootstrap_samples=0, calibration="none", threshold_rule="half")
    result = evaluate(done[0], "", str(tmp_path), parameters=parameters, predictor=kit.predictor())
    assert result.metrics["calibration"]["reason"] == "not asked for"
    assert result.metrics["threshold"]["value"] == 0.5
    assert result.metrics["test"]["at_threshold"] is not None


def test_a_folds_split_table_counts_and_who_is_held_out_is_predicted_only(kit: Any, done: Any, tmp_path: Path) -> None:
    root, before, _ = done
    turned = {"train": "test", "val": "val", "test": ""}
    rows = list(csv.DictReader(Path(root, "split.csv").read_text().splitlines()))
    table = tmp_path / "fold.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows({**row, "split": turned[row["split"]]} for row in rows)
    out = tmp_path / "out"
    predictor = kit.predictor(unsure(6))
    result = evaluate(root, "", str(out), split_table=str(table), parameters=QUICK, predictor=predictor)
    found = list(csv.DictReader((out / "predictions.csv").open()))
    assert [row["split"] for row in found] == ["val"] * 24 + ["test"] * 24 + [""] * 24
    assert {row["patient_id"][:5] for row in found if row["split"] == "test"} == {"train"}
    assert "train" not in result.metrics
    assert result.metrics["test"]["n_patients"] == 24
    assert result.metrics["calibration"]["temperature"] == done[2].metrics["calibration"]["temperature"]
    assert {path.name[:5] for path in (out / "heatmaps").iterdir()} == {"train"}
    assert (before / "metrics.json").exists()
