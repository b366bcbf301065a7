"""One result of all folds: mean and spread over them, intervals over the pooled patients, and the ensemble."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.records import storage
from components.statistics.abstention import describe_abstention
from components.statistics.confidence import CALIBRATED
from components.statistics.curves import Curves, calibration_bins, draw_curves
from components.statistics.delong import estimate_auc
from components.statistics.metrics import METRICS, bootstrap_intervals, describe_split, measure
from components.statistics.threshold import wilson_interval
from components.summarise_folds.folds import Fold, Pooled, pool, read_folds
from components.summarise_folds.report import write_report

_COUNTS = ("true_positive", "false_negative", "false_positive", "true_negative")
_SHARES = {
    "sensitivity": ("true_positive", "false_negative"),
    "specificity": ("true_negative", "false_positive"),
    "positive_predictive_value": ("true_positive", "false_positive"),
    "negative_predictive_value": ("true_negative", "false_negative"),
}


@dataclass(frozen=True)
class Summary:
    """What came of it: `metrics` is what `metrics.json` holds, `curves` are of the pooled test patients."""

    metrics: dict[str, Any]
    curves: Curves

    def flat_metrics(self) -> dict[str, float]:
        """Finite numbers for KFP's Metrics: means, deviations, pooled values, and the ensemble's."""
        flat: dict[str, float] = {}
        for name, spread in self.metrics["over_folds"].items():
            for kind in ("mean", "sd"):
                if spread[kind] is not None:
                    flat[f"{name}_{kind}"] = spread[kind]
        for prefix, section in (("pooled", self.metrics["test"]), ("ensemble", self.metrics["held_out"] or {})):
            flat |= {f"{prefix}_{name}": float(section[name]) for name in METRICS if section.get(name) is not None}
        return flat


def summarise_folds(
    evaluations: Mapping[str, str], out: str, *, bootstrap_samples: int = 1000, seed: int = 0
) -> Summary:
    """Writes `metrics.json`, `predictions.csv`, `held_out.csv` (where patients are held out) and `report/index.html`.

    In `metrics.json`, `test` is of the pooled patients: each was the test of one model a repeat, and its
    probabilities are the mean over repeats. `over_folds` has each metric's mean and standard deviation over the
    folds' test splits. `held_out` is of patients that no fold knew: the mean of all folds' probabilities.

    Args:
        evaluations: fold name → folder that `evaluate` wrote for it.
        out: folder to write into.
        bootstrap_samples: cohorts drawn for the intervals, 0 for none.
        seed: of the draws.

    Raises:
        InputError: see `read_folds`.
    """
    folds = read_folds(evaluations)
    labels = tuple(folds[0].metrics["labels"])
    pooled, held_out = pool(folds, labels), pool(folds, labels, held_out=True)
    draws = {"samples": bootstrap_samples, "seed": seed}
    repeats = sorted({fold.repeat for fold in folds})
    metrics: dict[str, Any] = {
        "test": {**_describe(pooled, labels, draws), "at_threshold": _pool_threshold(folds)},
        "over_folds": {name: _spread(folds, name) for name in METRICS},
        "calibrated_over_folds": {name: _spread(folds, name, "calibrated") for name in CALIBRATED},
        "repeats": [_measure_repeat(folds, repeat, labels) for repeat in repeats],
        "folds": [_describe_fold(fold) for fold in folds],
        "held_out": _describe_ensemble(folds, held_out, labels, draws) if held_out.patients else None,
        "labels": list(labels),
        "positive_label": labels[1] if len(labels) == 2 else None,
        "bootstrap_samples": bootstrap_samples,
        "schema_version": folds[0].metrics["schema_version"],
    }
    curves = _draw(pooled, labels)
    _write_predictions(storage.join(out, "predictions.csv"), pooled, labels, "test")
    if held_out.patients:
        _write_predictions(storage.join(out, "held_out.csv"), held_out, labels, "")
    storage.write_json(storage.join(out, "metrics.json"), metrics)
    fold_curves = [draw_curves("test", labels, f.truth, f.raw).roc for f in (pool([fold], labels) for fold in folds)]
    write_report(storage.join(out, "report", "index.html"), metrics, curves, fold_curves)
    return Summary(metrics, curves)


def _describe(pooled: Pooled, labels: Sequence[str], draws: Mapping[str, int]) -> dict[str, Any]:
    samples, seed = draws["samples"], draws["seed"]
    wanted = [1] if len(labels) == 2 else range(len(labels))
    calibrated = None
    if pooled.calibrated is not None:
        values = measure(pooled.truth, pooled.calibrated)
        intervals = bootstrap_intervals(pooled.truth, pooled.calibrated, samples, seed)
        names = (*CALIBRATED, "auc")
        calibrated = {**{name: values[name] for name in names}, "ci95": {name: intervals[name] for name in names}}
    return {
        **describe_split(pooled.truth, pooled.raw, samples=samples, seed=seed),
        "auc_delong": {labels[at]: estimate_auc(pooled.truth == at, pooled.raw[:, at]).to_json() for at in wanted},
        "calibrated": calibrated,
        "abstention": describe_abstention(pooled.truth, pooled.raw),
        "n_by_label": {label: int((pooled.truth == number).sum()) for number, label in enumerate(labels)},
    }


def _describe_ensemble(
    folds: Sequence[Fold], held_out: Pooled, labels: Sequence[str], draws: Mapping[str, int]
) -> dict[str, Any]:
    singles = [measure(*_arrays(fold, labels))["auc"] for fold in folds]
    return {**_describe(held_out, labels, draws), "models": len(folds), "auc_of_single_models": _summary_of(singles)}


def _arrays(fold: Fold, labels: Sequence[str]) -> tuple[Any, Any]:
    found = pool([fold], labels, held_out=True)
    return found.truth, found.raw


def _spread(folds: Sequence[Fold], name: str, section: str = "") -> dict[str, Any]:
    values = []
    for fold in folds:
        found = fold.metrics.get("test") or {}
        values.append(((found.get(section) or {}) if section else found).get(name))
    return _summary_of(values)


def _summary_of(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1), least and most of the defined values, and how many they are."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return {"mean": None, "sd": None, "min": None, "max": None, "folds": 0}
    deviation = float(known.std(ddof=1)) if len(known) > 1 else None
    return {
        "mean": float(known.mean()),
        "sd": deviation,
        "min": float(known.min()),
        "max": float(known.max()),
        "folds": len(known),
    }


def _measure_repeat(folds: Sequence[Fold], repeat: int, labels: Sequence[str]) -> dict[str, Any]:
    mine = pool([fold for fold in folds if fold.repeat == repeat], labels)
    return {"repeat": repeat, "n_patients": len(mine.patients), **measure(mine.truth, mine.raw)}


def _describe_fold(fold: Fold) -> dict[str, Any]:
    test, choice = fold.metrics.get("test") or {}, fold.metrics.get("choice")
    judged = test.get("at_threshold") or {}
    return {
        "name": fold.name,
        "n_patients": test.get("n_patients", 0),
        **{name: test.get(name) for name in METRICS},
        "temperature": fold.metrics["calibration"]["temperature"],
        "threshold": fold.metrics["threshold"]["value"],
        "sensitivity": judged.get("sensitivity"),
        "specificity": judged.get("specificity"),
        "chosen": choice["parameters"] if choice else None,
        "candidates": choice["candidates"] if choice else None,
    }


def _pool_threshold(folds: Sequence[Fold]) -> dict[str, Any] | None:
    """Counts of the first repeat, each patient judged by its own fold's threshold: no patient counts twice."""
    judged = [(fold.metrics.get("test") or {}).get("at_threshold") for fold in folds if fold.repeat == 0]
    if not judged or any(found is None for found in judged):
        return None
    counts = {name: sum(found[name] for found in judged if found) for name in _COUNTS}
    found: dict[str, Any] = dict(counts)
    for name, (hits, misses) in _SHARES.items():
        of = counts[hits] + counts[misses]
        found[name] = counts[hits] / of if of else None
        found[f"{name}_ci95"] = wilson_interval(counts[hits], of)
    return found


def _draw(pooled: Pooled, labels: tuple[str, ...]) -> Curves:
    plain = draw_curves("test", labels, pooled.truth, pooled.raw)
    return Curves(
        plain.split,
        labels,
        plain.roc,
        plain.confusion,
        plain.calibration,
        calibrated=[] if pooled.calibrated is None else calibration_bins(pooled.truth, pooled.calibrated),
        abstention=describe_abstention(pooled.truth, pooled.raw)["curve"],
    )


def _write_predictions(path: str, pooled: Pooled, labels: Sequence[str], split: str) -> None:
    columns = ["patient_id", "label", "split", *(f"prob_{label}" for label in labels)]
    if pooled.calibrated is not None:
        columns += [f"calibrated_{label}" for label in labels]
    with storage.open_atomic(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for at, patient in enumerate(pooled.patients):
            values = [*pooled.raw[at], *(pooled.calibrated[at] if pooled.calibrated is not None else ())]
            writer.writerow([patient, labels[pooled.truth[at]], split, *(f"{value:.9g}" for value in values)])
