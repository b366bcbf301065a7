"""What the report says of the steps before: split, tiling, validation, training."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Any

from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import name_first
from components.records.schema import SPLITS
from components.statistics.charts import draw_history

_MOST_PROBLEMS = 40
_MOST_CENTERS = 40
_PASS_WORDS = ("pass", "passed", "ok", "true")
_MOST_CURVES = 4
_NOT_CURVES = ("epoch", "seconds")


def describe_split_table(dataset: TiledDataset) -> dict[str, Any]:
    """Patients and slides of each split by label, and patients of each split by center."""
    splits = [split for split in SPLITS if dataset.patients(split)]
    patients: Counter[tuple[str, str]] = Counter()
    slides: Counter[tuple[str, str]] = Counter()
    centers: Counter[tuple[str, str]] = Counter()
    for split in splits:
        for rows in dataset.patients(split).values():
            patients[split, rows[0].label] += 1
            slides[split, rows[0].label] += len(rows)
            for center in {row.center_id for row in rows if row.center_id}:
                centers[split, center] += 1
    names = sorted({center for _, center in centers}, key=_natural)
    return {
        "splits": splits,
        "mixed": sum(len({row.split for row in rows}) > 1 for rows in dataset.patients().values()),
        "labels": dataset.schema.labels,
        "patients": {split: [patients[split, label] for label in dataset.schema.labels] for split in splits},
        "slides": {split: [slides[split, label] for label in dataset.schema.labels] for split in splits},
        "centers": [(name, [centers[split, name] for split in splits]) for name in names[:_MOST_CENTERS]],
        "more_centers": max(0, len(names) - _MOST_CENTERS),
    }


def describe_tiling(dataset: TiledDataset) -> dict[str, Any]:
    """Totals of the ledger, tiles of every slide, what went wrong and why."""
    ledger = dataset.ledger
    status = Counter(entry.status for entry in ledger)
    problems = [entry for entry in ledger if entry.status != "tiled"]
    patients = {row.image_id: row.patient_id for row in dataset.manifest.rows}
    return {
        "status": [(name, status[name]) for name in ("tiled", "partial", "empty", "failed") if status[name]],
        "slides": len(ledger),
        "tiles": sum(entry.tiles for entry in ledger),
        "tiles_failed": sum(entry.tiles_failed for entry in ledger),
        "counts": [(entry.image_id, entry.tiles) for entry in ledger],
        "readers": sorted(Counter(entry.reader for entry in ledger if entry.reader).items()),
        "mpp_sources": sorted(Counter(entry.mpp_source for entry in ledger).items()),
        "problems": [
            {
                "image_id": entry.image_id,
                "patient_id": patients.get(entry.image_id, ""),
                "status": entry.status,
                "tiles": entry.tiles,
                "tiles_failed": entry.tiles_failed,
                "reason": entry.reason,
            }
            for entry in problems[:_MOST_PROBLEMS]
        ],
        "more_problems": max(0, len(problems) - _MOST_PROBLEMS),
    }


def describe_validation(path: str) -> dict[str, Any] | None:
    """The verdict and checks of `validation.json`, whatever optional keys it has; None where there is none."""
    if not path or storage.stat(path) is None or os.path.isdir(path):
        return None
    found = storage.read_json(path)
    if not isinstance(found, dict):
        return None
    checks = found.get("checks")
    listed = [_describe_check(check) for check in checks if isinstance(check, dict)] if isinstance(checks, list) else []
    verdict = str(found.get("verdict", "")).lower()
    return {
        "verdict": verdict or "unknown",
        "tone": "green" if verdict in _PASS_WORDS else "amber" if verdict.startswith("warn") else "red",
        "checks": listed,
        "bad": sum(check["status"] == "fail" for check in listed),
    }


def _describe_check(check: dict[str, Any]) -> dict[str, Any]:
    status = str(_first(check, "status", "verdict", "passed") or "").lower()
    words = {
        "warn": "warn",
        "warning": "warn",
        "skip": "skipped",
        "skipped": "skipped",
        "not applicable": "not applicable",
    }
    status = "pass" if status in _PASS_WORDS else words.get(status, "fail")
    offenders = check.get("offenders")
    named = name_first((_plain(o) for o in offenders), 5) if isinstance(offenders, list) else ""
    return {
        "name": str(_first(check, "name", "check", "id") or "check").replace("_", " "),
        "status": status,
        "measured": _plain(_first(check, "measured", "value")),
        "threshold": _plain(_first(check, "threshold", "limit")),
        "message": str(_first(check, "message", "detail", "reason") or ""),
        "offenders": named,
    }


def describe_training(folder: str) -> dict[str, Any] | None:
    """Training curves of `history.json`: lists by name, or a list of epochs; None where there is none."""
    path = storage.join(folder, "history.json") if folder else ""
    if not path or storage.stat(path) is None:
        return None
    series = _series_of(storage.read_json(path))
    if not series:
        return None
    names = sorted({name.removeprefix("val_") for name in series}, key=lambda name: (name != "loss", name))
    names = [name for name in names if f"val_{name}" in series] or names
    validation_loss = [value for value in series.get("val_loss", []) if math.isfinite(value)]
    best = series["val_loss"].index(min(validation_loss)) + 1 if validation_loss else None
    charts = []
    for name in names[:_MOST_CURVES]:
        curves = {key: series[key] for key in (name, f"val_{name}") if key in series}
        charts.append({"name": name.replace("_", " "), "svg": draw_history(name.replace("_", " "), curves, best)})
    epochs = max(len(values) for values in series.values())
    return {
        "charts": [chart for chart in charts if chart["svg"]],
        "epochs": epochs,
        "best": best,
        "loss": series["loss"][best - 1] if best and len(series.get("loss", [])) >= best else None,
        "val_loss": min(validation_loss) if validation_loss else None,
    }


def _series_of(history: Any) -> dict[str, list[float]]:
    if isinstance(history, dict) and isinstance(history.get("history"), dict | list):
        history = history["history"]
    if isinstance(history, dict) and isinstance(history.get("epochs"), list):
        history = history["epochs"]
    if isinstance(history, list):
        rows = [row for row in history if isinstance(row, dict)]
        names = dict.fromkeys(name for row in rows for name in row if name != "epoch")
        history = {name: [row.get(name) for row in rows] for name in names}
    if not isinstance(history, dict):
        return {}
    found = {}
    for name, values in history.items():
        if name not in _NOT_CURVES and isinstance(values, list) and any(_is_number(value) for value in values):
            found[str(name)] = [float(value) if _is_number(value) else math.nan for value in values]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first(found: dict[str, Any], *names: str) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(entry) for entry in value)
    return str(value)


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
