"""An evaluation as Vertex AI's classification metrics, of all patients and of slices of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.records import storage
from components.records.manifest import read_manifest

THRESHOLDS = tuple(number / 20 for number in range(21))
_SMALLEST = 1e-15
_FEWEST = 2

Floats = NDArray[np.float64]


def describe_classification(evaluation_dir: str, metrics: dict[str, Any], split: str) -> dict[str, Any]:
    """The metrics of one split's patients, after `classification_metrics_1.0.0.yaml`."""
    labels = [str(label) for label in metrics["labels"]]
    _, truth, probabilities = read_predictions(evaluation_dir, labels, split)
    return measure(truth, probabilities, labels)


def describe_slices(
    evaluation_dir: str, dataset_root: str, metrics: dict[str, Any], split: str
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Slices of a split, each as (what it is of, its metrics): one a label, and one a center of two patients or more.

    A label's slice is that label against the rest.
    """
    labels = [str(label) for label in metrics["labels"]]
    patients, truth, probabilities = read_predictions(evaluation_dir, labels, split)
    slices: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for number, label in enumerate(labels):
        against = np.stack([1 - probabilities[:, number], probabilities[:, number]], axis=1)
        found = measure((truth == number).astype(np.int64), against, ["other", label])
        slices.append(({"dimension": "annotationSpec", "value": label}, found))
    rows = read_manifest(storage.join(dataset_root, "split.csv")).rows
    centers = {row.patient_id: row.center_id for row in rows}
    names = sorted({centers.get(patient, "") for patient in patients} - {""})
    for name in names if len(names) > 1 else ():
        here = np.array([centers.get(patient) == name for patient in patients])
        if here.sum() >= _FEWEST:
            spec = {"configs": {"center_id": {"value": {"string_value": name}}}}
            of = {"dimension": "slice", "value": f"center_id={name}", "slice_spec": spec}
            slices.append((of, measure(truth[here], probabilities[here], labels)))
    return slices


def read_predictions(evaluation_dir: str, labels: Sequence[str], split: str) -> tuple[list[str], Any, Floats]:
    """Patient ids, label indices int64 [n] and probabilities float64 [n, classes] of a split's `predictions.csv`."""
    text = storage.read_bytes(storage.join(evaluation_dir, "predictions.csv")).decode("utf-8")
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["split"] == split]
    truth = np.array([labels.index(row["label"]) for row in rows], np.int64)
    values = [[float(row[f"prob_{label}"]) for label in labels] for row in rows]
    return [row["patient_id"] for row in rows], truth, np.array(values, np.float64).reshape(-1, len(labels))


def measure(truth: NDArray[np.int64], probabilities: Floats, labels: Sequence[str]) -> dict[str, Any]:
    """Classification metrics as the registry shows them.

    Args:
        truth: [n], indices of `labels`.
        probabilities: [n, classes].
        labels: of the classes; of two the second is the positive one, of more each is against the rest.

    Returns:
        `logLoss`, `auRoc`, `auPrc` (those that are defined), `confidenceMetrics` and `confusionMatrix`.
    """
    classes = range(1, 2) if len(labels) == 2 else range(len(labels))
    picked = probabilities[np.arange(len(truth)), truth].clip(_SMALLEST, 1)
    found: dict[str, Any] = {"logLoss": float(-np.log(picked).mean()) if len(truth) else 0.0}
    for name, area in (("auRoc", area_under_roc), ("auPrc", average_precision)):
        values = [area(probabilities[:, number], truth == number) for number in classes]
        known = [value for value in values if value is not None]
        if known:
            found[name] = float(np.mean(known))
    called = probabilities.argmax(axis=1) if len(truth) else truth
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(matrix, (truth, called), 1)
    found["confusionMatrix"] = {
        "annotationSpecs": [{"id": str(number), "displayName": label} for number, label in enumerate(labels)],
        "rows": [[int(value) for value in row] for row in matrix],
    }
    scores = np.concatenate([probabilities[:, number] for number in classes])
    positive = np.concatenate([truth == number for number in classes])
    found["confidenceMetrics"] = [_at_threshold(scores, positive, threshold) for threshold in THRESHOLDS]
    return found


def _at_threshold(scores: Floats, positive: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    called = scores >= threshold
    hits, false = int((called & positive).sum()), int((called & ~positive).sum())
    missed, rest = int((~called & positive).sum()), int((~called & ~positive).sum())
    precision = hits / (hits + false) if hits + false else 1.0
    recall = hits / (hits + missed) if hits + missed else 0.0
    return {
        "confidenceThreshold": threshold,
        "precision": precision,
        "recall": recall,
        "f1Score": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "falsePositiveRate": false / (false + rest) if false + rest else 0.0,
        "truePositiveCount": hits,
        "falsePositiveCount": false,
        "falseNegativeCount": missed,
        "trueNegativeCount": rest,
    }


def area_under_roc(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """By pairs, ties count half; None where one side is empty."""
    wins = scores[positive][:, None] - scores[~positive][None, :]
    return float(np.mean((wins > 0) + 0.5 * (wins == 0))) if wins.size else None


def average_precision(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """Precision at each threshold weighted by the recall it adds; None without positives."""
    if not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.diff(scores[order]) != 0, True)
    precision, recall = (hits / np.arange(1, len(hits) + 1))[last], (hits / positive.sum())[last]
    return float((precision * np.diff(recall, prepend=0.0)).sum())
