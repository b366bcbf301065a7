"""One line a patient: what was predicted, kept small, and `predictions.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.records import storage
from components.records.schema import SPLITS
from components.statistics.metrics import Array, Indices, normalise_probabilities


@dataclass(frozen=True)
class AttendedSlide:
    """One slide of a prediction: its share of the patient's attention, and the box around its tiles, level-0 px."""

    image_id: str
    share: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Prediction:
    """One patient's prediction.

    Attributes:
        probabilities: one a label, in index order.
        tiles: how many tiles it rests on.
        slides: the most attended first.
    """

    patient_id: str
    label: str
    split: str
    probabilities: tuple[float, ...]
    tiles: int
    slides: tuple[AttendedSlide, ...]


def sort_predictions(predictions: list[Prediction]) -> list[Prediction]:
    """By split (train, val, test, none), then by patient id."""
    order = {split: number for number, split in enumerate((*SPLITS, ""))}
    return sorted(predictions, key=lambda p: (order[p.split], p.patient_id))


def write_predictions(
    path: str, predictions: list[Prediction], labels: tuple[str, ...], calibrated: Mapping[str, Sequence[float]]
) -> None:
    """Writes `patient_id,label,split,prob_<class>…`, sorted; where there are any, `calibrated_<class>…` after them.

    `prob_<class>` is what the model in the run's folder says by itself, so that anybody who loads it gets the same
    numbers. Probabilities have nine significant digits, which is float32 exactly. Patients without a tile are not in
    it: there is nothing to predict from.

    Args:
        path: the CSV.
        predictions: of all splits.
        labels: in index order.
        calibrated: patient id → calibrated probabilities; empty without a calibration.
    """
    columns = ["patient_id", "label", "split", *(f"prob_{label}" for label in labels)]
    if calibrated:
        columns += [f"calibrated_{label}" for label in labels]
    with storage.open_atomic(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for p in sort_predictions(predictions):
            values = [*p.probabilities, *calibrated.get(p.patient_id, ())]
            writer.writerow([p.patient_id, p.label, p.split, *(f"{value:.9g}" for value in values)])


def as_arrays(predictions: list[Prediction], labels: tuple[str, ...]) -> tuple[Indices, Array]:
    """Truth int64 [patients] and probabilities float64 [patients, classes], rows summing to 1."""
    truth = np.array([labels.index(p.label) for p in predictions], np.int64)
    if not predictions:
        return truth, np.zeros((0, len(labels)))
    return truth, normalise_probabilities(np.array([p.probabilities for p in predictions]))
