"""The evaluations of a cross-validation's folds as they were written, checked against each other."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.records import storage
from components.records.errors import InputError, name_first

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """One patient's probabilities in one fold; `calibrated` is empty without a calibration."""

    patient_id: str
    label: str
    raw: tuple[float, ...]
    calibrated: tuple[float, ...]


@dataclass(frozen=True)
class Fold:
    """One fold: `metrics` is its `metrics.json`; `tested` are its test patients, `held_out` those of no split."""

    name: str
    repeat: int
    metrics: dict[str, Any]
    tested: tuple[Predicted, ...]
    held_out: tuple[Predicted, ...]


@dataclass(frozen=True)
class Pooled:
    """One prediction a patient: patient ids sorted, truth int64 [n], raw and calibrated (or None) [n, classes]."""

    patients: tuple[str, ...]
    truth: NDArray[np.int64]
    raw: Floats
    calibrated: Floats | None


def read_folds(evaluations: Mapping[str, str]) -> list[Fold]:
    """Reads every fold's `metrics.json` and `predictions.csv`.

    Args:
        evaluations: fold name (`r<repeat>_f<fold>`) → folder of its evaluation.

    Raises:
        InputError: a file is missing, folds know other labels, or a patient is tested twice in a repeat, or in one
            repeat and not in another.
    """
    folds = [_read_fold(name, folder) for name, folder in evaluations.items()]
    labels = folds[0].metrics["labels"]
    other = [fold.name for fold in folds if fold.metrics["labels"] != labels]
    if other:
        raise InputError(f"{name_first(other)} know other labels than {folds[0].name}", mend="run all folds again")
    tested: dict[int, set[str]] = {}
    for fold in folds:
        mine = tested.setdefault(fold.repeat, set())
        twice = sorted(mine & {p.patient_id for p in fold.tested})
        if twice:
            raise InputError(
                f"{name_first(twice)} tested in two folds of one repeat", where=fold.name, mend="run all folds again"
            )
        mine |= {p.patient_id for p in fold.tested}
    everybody: set[str] = set().union(*tested.values())
    missing = sorted(patient for patient in everybody if any(patient not in mine for mine in tested.values()))
    if missing:
        raise InputError(f"{name_first(missing)} not tested in every repeat", mend="run all folds again")
    return folds


def pool(folds: Sequence[Fold], labels: Sequence[str], *, held_out: bool = False) -> Pooled:
    """The mean of each patient's probabilities: over the repeats, or for held-out patients over all folds' models."""
    found: dict[str, list[Predicted]] = {}
    for fold in folds:
        for predicted in fold.held_out if held_out else fold.tested:
            found.setdefault(predicted.patient_id, []).append(predicted)
    patients = tuple(sorted(found))
    truth = np.array([list(labels).index(found[patient][0].label) for patient in patients], np.int64)
    raw = np.array([np.mean([p.raw for p in found[patient]], axis=0) for patient in patients])
    calibrated = None
    if patients and all(p.calibrated for of_patient in found.values() for p in of_patient):
        calibrated = np.array([np.mean([p.calibrated for p in found[patient]], axis=0) for patient in patients])
    return Pooled(patients, truth, raw.reshape(-1, len(labels)), calibrated)


def _read_fold(name: str, folder: str) -> Fold:
    metrics = storage.read_json(storage.join(folder, "metrics.json"))
    text = storage.read_bytes(storage.join(folder, "predictions.csv")).decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    labels = metrics["labels"]

    def read(row: dict[str, str]) -> Predicted:
        raw = tuple(float(row[f"prob_{label}"]) for label in labels)
        calibrated = tuple(float(row[f"calibrated_{label}"]) for label in labels if f"calibrated_{label}" in row)
        return Predicted(row["patient_id"], row["label"], raw, calibrated)

    tested = tuple(read(row) for row in rows if row["split"] == "test")
    held_out = tuple(read(row) for row in rows if not row["split"])
    repeat = int(name.partition("_")[0].removeprefix("r"))
    return Fold(name, repeat, metrics, tested, held_out)
