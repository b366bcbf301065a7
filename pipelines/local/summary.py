"""The few lines a finished run ends with."""

from __future__ import annotations

import csv
import io
import os
from typing import Any

from components.records import storage
from pipelines.local.run import RunResult

_SPLITS = ("train", "val", "test")


def summarise(result: RunResult) -> dict[str, Any]:
    """Times, metrics and places, as plain values."""
    metrics_path = os.path.join(result.out, "metrics.json")
    report = os.path.join(result.out, "report", "index.html")
    evaluated = "evaluate" in result.seconds and not result.error
    metrics = storage.read_json(metrics_path) if evaluated and os.path.exists(metrics_path) else {}
    return {
        "out": result.out,
        "seconds": result.seconds,
        "total_seconds": result.total_seconds,
        "peak_bytes": result.peak_bytes,
        "metrics": {split: metrics[split] for split in _SPLITS if metrics.get(split)},
        "gate": metrics.get("gate"),
        "report": report if evaluated and os.path.exists(report) else None,
    }


def render_summary(summary: dict[str, Any]) -> str:
    """The summary as text."""
    lines = [f"  {'step':<10}{'time':>9}"]
    for step, seconds in summary["seconds"].items():
        lines.append(f"  {step:<10}{'cached' if seconds is None else f'{seconds:.1f} s':>9}")
    peak = summary["peak_bytes"] / 1e9
    lines.append(f"  {'in all':<10}{summary['total_seconds']:>7.1f} s   peak memory of a step {peak:.1f} GB")
    metrics = render_metrics(summary)
    return "\n".join([*lines, "", *metrics] if metrics else lines)


def summarise_predictions(result: RunResult) -> dict[str, Any]:
    """How many patients were called what, and where the report is."""
    path, report = (os.path.join(result.out, *names) for names in (("predictions.csv",), ("report", "index.html")))
    if result.error or not os.path.exists(path):
        return {"called": {}, "report": None}
    rows = list(csv.DictReader(io.StringIO(storage.read_bytes(path).decode("utf-8"))))
    labels = [name.removeprefix("prob_") for name in rows[0] if name.startswith("prob_")] if rows else []
    called = [max(labels, key=lambda label: float(row[f"prob_{label}"])) for row in rows]
    return {"called": {label: called.count(label) for label in labels}, "report": report}


def render_predictions(summary: dict[str, Any]) -> str:
    """The summary of a batch prediction as text."""
    lines = [render_summary({**summary, "metrics": {}, "gate": None, "report": None})]
    if summary["called"]:
        lines += ["", *(f"  called {label}: {number} patients" for label, number in summary["called"].items())]
        lines += ["", f"  report: {summary['report']}"]
    return "\n".join(lines)


def render_metrics(summary: dict[str, Any]) -> list[str]:
    """The metrics of each split, the gate and the report's place, a line each."""
    lines = []
    if any("tile_auc" in values for values in summary["metrics"].values()):
        lines.append(f"  {'split':<7}{'slides':>9}{'tile AUC':>10}{'slide AUC':>11}{'FROC':>8}")
        lines += [_tile_metrics_line(split, values) for split, values in summary["metrics"].items()]
    elif summary["metrics"]:
        lines.append(f"  {'split':<7}{'patients':>9}{'AUC':>7}{'95% interval':>15}{'accuracy':>10}{'log loss':>10}")
        lines += [_metrics_line(split, values) for split, values in summary["metrics"].items()]
    gate = summary["gate"]
    if gate:
        lines.append(f"  gate: {'blessed' if gate.get('blessed') else 'not blessed'} ({gate.get('reason', '')})")
    if summary["report"]:
        lines += ["", f"  report: {summary['report']}"]
    return lines


def _metrics_line(split: str, values: dict[str, Any]) -> str:
    low, high = values.get("auc_ci95") or (None, None)
    interval = f"{low:.2f}–{high:.2f}" if low is not None and high is not None else "–"
    return (
        f"  {split:<7}{values['n_patients']:>9}{_number(values.get('auc'), 3):>7}{interval:>15}"
        f"{_number(values.get('accuracy'), 3):>10}{_number(values.get('log_loss'), 3):>10}"
    )


def _tile_metrics_line(split: str, values: dict[str, Any]) -> str:
    return (
        f"  {split:<7}{values['n_slides']:>9}{_number(values['tile_auc'], 3):>10}"
        f"{_number(values['slide_auc'], 3):>11}{_number(values['froc']['score'], 3):>8}"
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
