"""The gate: whether a model is good enough to be used, and better than the one before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.records import storage
from components.records.errors import InputError
from components.records.schema import SPLITS
from components.statistics.metrics import LOWER_IS_BETTER, METRICS


@dataclass(frozen=True)
class Verdict:
    """What the gate said: `reason` is one sentence; `threshold` and `previous` are None where none was given."""

    metric: str
    split: str
    value: float | None
    threshold: float | None
    previous: float | None
    blessed: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The `gate` section of `metrics.json`."""
        return asdict(self)


def check_gate(metric: str, split: str, threshold: float) -> None:
    """Raises InputError where the gate's parameters name no metric or split, or the threshold is no number."""
    if metric not in METRICS:
        raise InputError(f"unknown metric {metric!r}", where="gate_metric", mend=f"use one of {', '.join(METRICS)}")
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}", where="gate_split", mend=f"use one of {', '.join(SPLITS)}")
    if not math.isfinite(threshold):
        raise InputError(f"{threshold} is not a finite number", where="gate_threshold", mend="give a number")


def read_previous(path: str) -> dict[str, Any] | None:
    """The metrics of an earlier model, from its `metrics.json` or the folder that holds one; None for an empty path.

    Raises:
        InputError: there is no such file, or it is no metrics file.
    """
    if not path:
        return None
    if not path.endswith(".json"):
        path = storage.join(path, "metrics.json")
    found = storage.read_json(path)
    if not isinstance(found, dict) or not any(isinstance(found.get(split), dict) for split in SPLITS):
        raise InputError("holds no metrics of a split", where=path, mend="give the metrics.json of an earlier run")
    return found


def judge(
    metrics: Mapping[str, Any],
    *,
    metric: str = "auc",
    split: str = "test",
    threshold: float = 0.0,
    previous: Mapping[str, Any] | None = None,
) -> Verdict:
    """Whether a model is blessed.

    It is where its metric is defined and strictly better than the threshold and, where there is an earlier
    model whose metric is defined, strictly better than that too. For losses "better" is lower.

    Args:
        metrics: split to metrics, as in `metrics.json`.
        metric: one of `METRICS`.
        split: which split's metric counts.
        threshold: 0 stands for none.
        previous: `metrics.json` of the earlier model.
    """
    value = _value(metrics, split, metric)
    before = _value(previous, split, metric) if previous is not None else None
    limit = threshold if threshold != 0 else None
    name = f"{split} {metric}"
    if value is None:
        blessed, reason = False, f"{name} is not defined"
    elif limit is not None and not _better(metric, value, limit):
        blessed, reason = False, f"{name} {value:.4f} is not {_side(metric)} the threshold {limit:g}"
    elif before is not None and not _better(metric, value, before):
        blessed, reason = False, f"{name} {value:.4f} is not {_side(metric)} the previous model's {before:.4f}"
    else:
        passed = [] if limit is None else [f"is {_side(metric)} the threshold {limit:g}"]
        if before is not None:
            passed.append(f"is {_side(metric)} the previous model's {before:.4f}")
        elif previous is not None:
            passed.append("has no previous value to beat")
        blessed, reason = True, f"{name} {value:.4f} {' and '.join(passed) or 'with no threshold to beat'}"
    return Verdict(metric, split, value, limit, before, blessed, reason)


def _value(metrics: Mapping[str, Any], split: str, metric: str) -> float | None:
    section = metrics.get(split)
    value = section.get(metric) if isinstance(section, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _better(metric: str, value: float, other: float) -> bool:
    return value < other if metric in LOWER_IS_BETTER else value > other


def _side(metric: str) -> str:
    return "below" if metric in LOWER_IS_BETTER else "above"
