"""The summary of folds against NumPy and scikit-learn, on predictions that are made up."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from components.records import storage
from components.records.errors import InputError
from components.statistics.confidence import learn_confidence
from components.statistics.metrics import describe_split
from components.summarise_folds.summarise import summarise_folds


def write_fold(
    folder: Path, tested: dict[str, tuple[str, float]], held_out=(), *, labels=("a", "b"), **more: Any
) -> str:
    """A fold's evaluation as `evaluate` leaves it: patient → label and probability of `b`."""
    truth = np.array([labels.index(label) for label, _ in tested.values()], int)
    p = np.array([score for _, score in tested.values()], float)
    probabilities = np.stack([1 - p, p], axis=1).reshape(-1, 2)
    val = (np.array([0, 1, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]))
    learned = learn_confidence(
        {"val": val}, 2, calibration="temperature", threshold_rule="youden", wanted_sensitivity=0.95
    )
    test = {
        **describe_split(truth, probabilities, samples=0),
        **learned.describe(labels, truth, probabilities, samples=0, seed=0),
    }
    metrics = {
        "test": test, "labels": list(labels), "schema_version": "1", "choice": None,
        "calibration": learned.calibration.to_json(), "threshold": learned.threshold.to_json(), **more,
    }  # fmt: skip
    storage.write_json(folder / "metrics.json", metrics)
    with (folder / "predictions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient_id", "label", "split", "prob_a", "prob_b", "calibrated_a", "calibrated_b"])
        for split, patients in (("train", {"t": ("a", 0.5)}), ("test", tested), ("", dict(held_out))):
            for patient, (label, score) in patients.items():
                row = learned.calibration.apply(np.array([[1 - score, score]]))[0]
                writer.writerow([patient, label, split, 1 - score, score, *row])
    return str(folder)


def make_study(root: Path, folds: int = 4, repeats: int = 1, patients: int = 24, held: int = 0) -> dict[str, str]:
    random = np.random.default_rng(0)
    ids = [f"p{number:02d}" for number in range(patients)]
    labels = {patient: "ab"[number % 2] for number, patient in enumerate([*ids, *(f"h{n}" for n in range(held))])}
    found = {}
    for repeat in range(repeats):
        order = random.permutation(ids)
        for fold in range(folds):

            def score(patient: str) -> tuple[str, float]:
                return labels[patient], float(
                    np.clip(random.normal(0.35 + 0.3 * (labels[patient] == "b"), 0.2), 0.01, 0.99)
                )

            name = f"r{repeat}_f{fold}"
            tested = {patient: score(patient) for patient in sorted(order[fold::folds])}
            out = {f"h{n}": score(f"h{n}") for n in range(held)}
            found[name] = write_fold(root / name, tested, out)
    return found


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_mean_spread_and_pooled(tmp_path: Path) -> None:
    folders = make_study(tmp_path)
    done = summarise_folds(folders, str(tmp_path / "out"), bootstrap_samples=50)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics == done.metrics
    singles, truth, scores = [], [], []
    for folder in folders.values():
        rows = [row for row in read(Path(folder, "predictions.csv")) if row["split"] == "test"]
        mine = [row["label"] == "b" for row in rows], [float(row["prob_b"]) for row in rows]
        singles.append(roc_auc_score(*mine))
        truth += mine[0]
        scores += mine[1]
    spread = metrics["over_folds"]["auc"]
    assert (spread["mean"], spread["sd"]) == pytest.approx((np.mean(singles), np.std(singles, ddof=1)))
    assert (spread["min"], spread["max"], spread["folds"]) == pytest.approx((min(singles), max(singles), 4))
    test = metrics["test"]
    assert test["n_patients"] == 24
    assert test["auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert test["accuracy"] == pytest.approx(accuracy_score(truth, np.array(scores) > 0.5))
    assert test["auc_ci95"][0] < test["auc"] < test["auc_ci95"][1]
    assert test["auc_delong"]["b"]["ci95"][0] < test["auc"]
    assert test["calibrated"]["ci95"]["ece"]
    assert metrics["held_out"] is None
    assert not (tmp_path / "out" / "held_out.csv").exists()
    rows = read(tmp_path / "out" / "predictions.csv")
    assert [row["patient_id"] for row in rows] == [f"p{number:02d}" for number in range(24)]
    assert {row["split"] for row in rows} == {"test"}


def test_repeats_are_averaged_for_each_patient_and_none_counts_twice(tmp_path: Path) -> None:
    folders = make_study(tmp_path, repeats=3)
    metrics = summarise_folds(folders, str(tmp_path / "out"), bootstrap_samples=0).metrics
    scores: dict[str, list[float]] = {}
    for folder in folders.values():
        for row in read(Path(folder, "predictions.csv")):
            if row["split"] == "test":
                scores.setdefault(row["patient_id"], []).append(float(row["prob_b"]))
    rows = {row["patient_id"]: float(row["prob_b"]) for row in read(tmp_path / "out" / "predictions.csv")}
    assert rows == pytest.approx({patient: np.mean(values) for patient, values in scores.items()})
    assert metrics["test"]["n_patients"] == 24
    assert [repeat["n_patients"] for repeat in metrics["repeats"]] == [24] * 3
    judged = metrics["test"]["at_threshold"]
    counts = ("true_positive", "false_negative", "false_positive", "true_negative")
    assert sum(judged[name] for name in counts) == 24
    assert metrics["over_folds"]["auc"]["folds"] == 12


def test_the_ensemble_is_the_mean_of_all_models_on_who_was_held_out(tmp_path: Path) -> None:
    folders = make_study(tmp_path, held=10)
    metrics = summarise_folds(folders, str(tmp_path / "out"), bootstrap_samples=20).metrics
    scores: dict[str, list[float]] = {}
    for folder in folders.values():
        for row in read(Path(folder, "predictions.csv")):
            if not row["split"]:
                scores.setdefault(row["patient_id"], []).append(float(row["prob_b"]))
    rows = read(tmp_path / "out" / "held_out.csv")
    assert {row["patient_id"]: float(row["prob_b"]) for row in rows} == pytest.approx(
        {patient: np.mean(values) for patient, values in scores.items()}
    )
    held = metrics["held_out"]
    assert (held["n_patients"], held["models"]) == (10, 4)
    assert held["auc"] == pytest.approx(
        roc_auc_score([row["label"] == "b" for row in rows], [float(row["prob_b"]) for row in rows])
    )
    assert held["auc_of_single_models"]["folds"] == 4
    assert "h0" not in (tmp_path / "out" / "predictions.csv").read_text()
    assert "Held-out test" in (tmp_path / "out" / "report" / "index.html").read_text()


def test_the_chosen_parameters_are_told_fold_by_fold(tmp_path: Path) -> None:
    choice = {"parameters": {"learning_rate": 0.001}, "candidates": [], "chosen": 0}
    folders = make_study(tmp_path, folds=3)
    for folder in folders.values():
        metrics = storage.read_json(Path(folder, "metrics.json"))
        storage.write_json(Path(folder, "metrics.json"), {**metrics, "choice": choice})
    metrics = summarise_folds(folders, str(tmp_path / "out"), bootstrap_samples=0).metrics
    assert [fold["chosen"] for fold in metrics["folds"]] == [{"learning_rate": 0.001}] * 3
    assert "learning_rate 0.001" in (tmp_path / "out" / "report" / "index.html").read_text()


def test_a_fold_of_one_label_counts_where_it_can(tmp_path: Path) -> None:
    folders = make_study(tmp_path, folds=3)
    write_fold(tmp_path / "r0_f0", {"q1": ("a", 0.2)})
    metrics = summarise_folds(folders, str(tmp_path / "out"), bootstrap_samples=20).metrics
    assert metrics["over_folds"]["auc"]["folds"] == 2
    assert metrics["over_folds"]["accuracy"]["folds"] == 3
    assert "NaN" not in (tmp_path / "out" / "metrics.json").read_text()


def test_the_page_is_one_file_and_the_bytes_repeat(tmp_path: Path) -> None:
    folders = make_study(tmp_path, held=4)
    done = summarise_folds(folders, str(tmp_path / "a"), bootstrap_samples=20)
    summarise_folds(folders, str(tmp_path / "b"), bootstrap_samples=20)
    page = (tmp_path / "a" / "report" / "index.html").read_bytes()
    assert page == (tmp_path / "b" / "report" / "index.html").read_bytes()
    text = page.decode()
    assert not re.search(r"https?:|<script|<link|url\(", text)
    for part in ("cross-validated", "AUC, mean of folds", "Range", "r0_f3", "Decision", "Calibration error", "AURC"):
        assert part.lower() in text.lower(), part
    assert all(np.isfinite(value) for value in done.flat_metrics().values())
    assert {"auc_mean", "auc_sd", "pooled_auc", "ensemble_auc"} <= set(done.flat_metrics())


def test_folds_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    folders = make_study(tmp_path / "s", folds=3, repeats=2)
    write_fold(tmp_path / "s" / "r0_f1", {"p00": ("a", 0.5), "p01": ("b", 0.5)})
    write_fold(tmp_path / "s" / "r0_f2", {"p00": ("a", 0.5), "p01": ("b", 0.5)})
    with pytest.raises(InputError, match="tested in two folds of one repeat"):
        summarise_folds(folders, str(tmp_path / "out"))
    folders = make_study(tmp_path / "t", folds=3, repeats=2)
    write_fold(tmp_path / "t" / "r1_f2", {"other": ("a", 0.5), "more": ("b", 0.5)})
    with pytest.raises(InputError, match="not tested in every repeat"):
        summarise_folds(folders, str(tmp_path / "out"))
    folders = make_study(tmp_path / "u", folds=3)
    metrics = storage.read_json(tmp_path / "u" / "r0_f1" / "metrics.json")
    storage.write_json(tmp_path / "u" / "r0_f1" / "metrics.json", {**metrics, "labels": ["b", "a"]})
    with pytest.raises(InputError, match="r0_f1 know other labels than r0_f0"):
        summarise_folds(folders, str(tmp_path / "out"))
