"""What the dashboard shows of a run: the numbers of `metrics.json` and `predictions.csv`, curves drawn from them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from components.records.schema import SPLITS
from components.statistics.curves import calibration_bins, draw_curves
from components.statistics.metrics import Array, Indices, measure, normalise_probabilities
from components.viewer.lineage import draw_graph
from components.viewer.run import Prediction, Run

_MOST_ROWS = 200
_WORST = 25


def describe_run(run: Run) -> dict[str, Any]:
    """Everything of one run, as JSON; sections that the run lacks are None or empty."""
    ledger = list(run.ledger.values())
    splits = [split for split in SPLITS if split in run.metrics]
    return {
        "key": run.key,
        "labels": list(run.labels),
        "facts": _facts(run),
        "totals": {
            "patients": len({row.patient_id for row in run.rows}),
            "slides": len(run.rows),
            "tiles": sum(part.tiles for part in run.dataset.parts),
            "status": dict(sorted(Counter(entry.status for entry in ledger).items())),
        },
        "splits": splits,
        "metrics": {split: run.metrics[split] for split in splits},
        "gate": run.metrics.get("gate"),
        "attention": run.metrics.get("attention") or {},
        "bootstrap_samples": run.metrics.get("bootstrap_samples"),
        "positive_label": run.metrics.get("positive_label"),
        "threshold": run.metrics.get("threshold"),
        "curves": {split: _curves(run, split) for split in splits},
        "centers": {split: _centers(run, split) for split in splits},
        "worst": {split: _worst(run, split) for split in splits},
        "history": {"best_epoch": run.history.get("best_epoch"), "epochs": _epochs(run)},
        "failures": _failures(run),
        "failed_tiles": len(run.failed_tiles),
        "lineage": draw_graph(run.events),
    }


def _facts(run: Run) -> dict[str, Any]:
    schema = run.dataset.schema
    return {
        "tile_px": schema.tile_px,
        "mpp": schema.mpp,
        "code_version": schema.code_version,
        "manifest_hash": run.dataset.manifest.digest,
    }


def _of(run: Run, split: str) -> list[Prediction]:
    return [one for one in run.predictions.values() if one.split == split and one.label in run.labels]


def _arrays(run: Run, found: list[Prediction]) -> tuple[Indices, Array]:
    truth = np.array([run.labels.index(one.label) for one in found], np.int64)
    if not found:
        return truth, np.zeros((0, len(run.labels)))
    rows = [[one.probabilities.get(label, 0.0) for label in run.labels] for one in found]
    return truth, normalise_probabilities(np.array(rows))


def _curves(run: Run, split: str) -> dict[str, Any]:
    found = _of(run, split)
    truth, probabilities = _arrays(run, found)
    curves = draw_curves(split, run.labels, truth, probabilities)
    calibrated: list[dict[str, float]] = []
    if found and all(one.calibrated for one in found):
        rows = [[one.calibrated.get(label, 0.0) for label in run.labels] for one in found]
        calibrated = calibration_bins(truth, normalise_probabilities(np.array(rows)))
    return {
        "roc": curves.roc,
        "confusion": curves.confusion,
        "calibration": curves.calibration,
        "calibrated": calibrated,
    }


def _centers(run: Run, split: str) -> list[dict[str, Any]]:
    center = {row.patient_id: row.center_id for row in run.rows}
    by_center: dict[str, list[Prediction]] = {}
    for one in _of(run, split):
        by_center.setdefault(center.get(one.patient_id, ""), []).append(one)
    if set(by_center) <= {""}:
        return []
    table = []
    for name in sorted(by_center):
        truth, probabilities = _arrays(run, by_center[name])
        values = measure(truth, probabilities)
        shown = {key: values[key] for key in ("accuracy", "balanced_accuracy", "auc", "log_loss", "ece")}
        table.append({"center": name, "patients": len(truth), **shown})
    return table


def _worst(run: Run, split: str) -> list[dict[str, Any]]:
    slides: dict[str, list[str]] = {}
    for row in run.rows:
        slides.setdefault(row.patient_id, []).append(row.image_id)
    ordered = sorted(_of(run, split), key=lambda one: (-one.loss, one.patient_id))
    return [
        {
            "patient_id": one.patient_id,
            "label": one.label,
            "predicted": one.predicted,
            "right": one.predicted == one.label,
            "of_truth": one.probabilities.get(one.label, 0.0),
            "loss": one.loss,
            "image_ids": slides.get(one.patient_id, []),
        }
        for one in ordered[:_WORST]
    ]


def _epochs(run: Run) -> list[dict[str, Any]]:
    epochs = run.history.get("epochs")
    return [one for one in epochs if isinstance(one, dict)] if isinstance(epochs, list) else []


def _failures(run: Run) -> list[dict[str, Any]]:
    lost = [entry for entry in run.ledger.values() if entry.status != "tiled"]
    lost.sort(key=lambda entry: (entry.status != "failed", entry.status != "partial", entry.image_id))
    return [
        {
            "image_id": entry.image_id,
            "status": entry.status,
            "reason": entry.reason,
            "tiles": entry.tiles,
            "tiles_failed": entry.tiles_failed,
        }
        for entry in lost[:_MOST_ROWS]
    ]
