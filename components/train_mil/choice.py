"""Chooses among sets of hyper-parameters by the validation split: the test split is never read."""

from __future__ import annotations

import difflib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from components.records import storage
from components.records.errors import InputError
from components.records.provenance import file_digest
from components.train_mil.parameters import TrainingParameters

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    from components.train_mil.train import TrainingSummary

log = logging.getLogger(__name__)

CHOICE = "choice.json"


def read_grid(grid: Sequence[Mapping[str, Any]], parameters: TrainingParameters) -> list[TrainingParameters]:
    """The sets of a grid, each laid over `parameters`.

    Raises:
        InputError: a set is no mapping, names an unknown parameter (suggests the right one), or a value doesn't fit.
    """
    known = {field.name: type(getattr(parameters, field.name)) for field in fields(parameters)}
    chosen = []
    for number, entry in enumerate(grid, start=1):
        where = f"grid, set {number}"
        if not isinstance(entry, Mapping) or not entry:
            raise InputError("is no set of parameters", where=where, mend="write `- learning_rate: 0.001`, say")
        values: dict[str, Any] = {}
        for name, value in entry.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                mend = f"did you mean {near[0]}?" if near else "a set holds parameters of the training"
                raise InputError(f"unknown parameter {name!r}", where=where, mend=mend)
            values[name] = _fit(name, value, known[name], where)
        made = replace(parameters, **values)
        made.check()
        chosen.append(made)
    return chosen


def train_best(
    root: str,
    model_dir: str,
    training_dir: str,
    parameters: TrainingParameters,
    grid: Sequence[Mapping[str, Any]] = (),
    *,
    work_dir: str = "",
    split_table: str = "",
    embedded: str = "",
) -> TrainingSummary:
    """Trains once for every set of a grid and keeps the model of the lowest validation loss, of equal ones the first.

    Beside the history there is then `choice.json`: every set with what it reached, and which was chosen. The other
    models are not kept.

    Args:
        root: a tiled dataset.
        model_dir: the chosen model goes here.
        training_dir: its history goes here.
        parameters: what every set starts from; without a grid, what is trained.
        grid: sets of parameters.
        work_dir: see `train_mil`; each set has a folder in it.
        split_table: see `train_mil`.
        embedded: see `train_mil`.

    Raises:
        InputError: a grid that makes no sense, or no validation split to choose by; and as `train_mil`.
        WorkError: as `train_mil`.
    """
    from components.train_mil.train import train_mil

    candidates = read_grid(grid, parameters)
    if work_dir and split_table:  # folds that run side by side must not share their checkpoints
        work_dir = os.path.join(work_dir, file_digest(split_table).removeprefix("sha256:")[:16])
    if not candidates:
        return train_mil(root, model_dir, training_dir, parameters, work_dir, split_table, embedded)
    tried: list[dict[str, Any]] = []
    best: tuple[float, int, TrainingSummary] | None = None
    with tempfile.TemporaryDirectory() as scratch:
        for number, candidate in enumerate(candidates):
            log.info("set %d of %d: %s", number + 1, len(candidates), dict(grid[number]))
            model, training = os.path.join(scratch, f"model-{number}"), os.path.join(scratch, f"training-{number}")
            kept = os.path.join(work_dir, f"set-{number}") if work_dir else ""
            summary = train_mil(root, model, training, candidate, kept, split_table, embedded)
            loss = summary.val_loss
            if loss is None:
                raise InputError(
                    "can't choose without validation patients", where="grid", mend="give val_share above 0"
                )
            reached = {"val_loss": loss, "val_auc": summary.val_auc, "best_epoch": summary.best_epoch}
            tried.append({"parameters": dict(grid[number]), **reached})
            if best is None or loss < best[0]:
                best = (loss, number, summary)
        _, chosen, summary = best or (0.0, 0, summary)
        if os.path.isdir(os.path.join(scratch, f"model-{chosen}")):  # of several workers the chief alone writes
            for name, target in (("model", model_dir), ("training", training_dir)):
                shutil.copytree(os.path.join(scratch, f"{name}-{chosen}"), target, dirs_exist_ok=True)
            found = {"criterion": "val_loss", "chosen": chosen, "candidates": tried, **tried[chosen]}
            storage.write_json(storage.join(training_dir, CHOICE), found)
    return summary


def _fit(name: str, value: Any, kind: type, where: str) -> Any:
    if kind is float and isinstance(value, str):
        try:
            value = float(value)  # YAML 1.1 reads 1e-4 as text
        except ValueError:
            value = str(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # KFP's lists carry every number as a float
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name} is {value!r}, which is no {kind.__name__}", where=where, mend="correct the value")
    return value
