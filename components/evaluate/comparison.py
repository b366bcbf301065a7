"""Whether a model differs from the one before it on the same patients, by DeLong's test."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from components.evaluate.predictions import Prediction
from components.records import storage
from components.statistics.delong import AucComparison, compare_aucs


def compare_with_previous(
    path: str, predictions: Sequence[Prediction], labels: tuple[str, ...], split: str
) -> dict[str, Any] | None:
    """Both models' AUCs on one split's patients, from the `predictions.csv` beside the earlier `metrics.json`.

    Args:
        path: the earlier `metrics.json`, or its folder; empty for none.
        predictions: this model's.
        labels: in index order.
        split: whose patients; those that are in it for both models take part.

    Returns:
        `split`, `patients` and what `AucComparison` holds (the first model is this one); None without an earlier model.
    """
    if not path:
        return None
    folder = path.rpartition("/")[0] if path.endswith(".json") else path
    before = _read_scores(storage.join(folder, "predictions.csv"), labels, split)
    if isinstance(before, str):
        return {"split": split, "patients": 0, **AucComparison(None, None, reason=before).to_json()}
    both = [p for p in predictions if p.split == split and before.get(p.patient_id, ("", 0.0))[0] == p.label]
    compared = compare_aucs(
        np.array([p.label == labels[1] for p in both], bool),
        np.array([p.probabilities[1] for p in both], np.float64),
        np.array([before[p.patient_id][1] for p in both], np.float64),
    )
    return {"split": split, "patients": len(both), **compared.to_json()}


def _read_scores(path: str, labels: tuple[str, ...], split: str) -> dict[str, tuple[str, float]] | str:
    """Patient id → label and score of the positive one; or why there are none."""
    if len(labels) != 2:
        return "there are more than two labels"
    if storage.stat(path) is None:
        return "no predictions.csv lies beside the previous metrics.json"
    rows = list(csv.DictReader(io.StringIO(storage.read_bytes(path).decode("utf-8"))))
    column = f"prob_{labels[1]}"
    if any(not row.get(column) for row in rows):
        return f"the previous predictions.csv has no {column}"
    return {row["patient_id"]: (row["label"], float(row[column])) for row in rows if row["split"] == split}
