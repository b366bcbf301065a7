"""A training's state in one file, written whole after every epoch."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.records import storage
from components.records.dataset import TiledDataset
from components.records.provenance import code_version

log = logging.getLogger(__name__)

Weights = list[NDArray[Any]]


class Parameters(Protocol):
    """What a training was told."""

    def to_json(self) -> dict[str, Any]:
        """Every parameter by name."""
        ...


@dataclass
class State:
    """Where a training stands after `len(history)` epochs.

    Attributes:
        weights, optimizer: the model's and the optimizer's variables, in their order.
        best: the model's variables after the best epoch.
        best_epoch: 1-based; 0 before the first.
        history: one entry an epoch.
    """

    weights: Weights
    optimizer: Weights
    best: Weights
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def training_key(parameters: Parameters, dataset: TiledDataset) -> str:
    """What a checkpoint must share with a training to be gone on with: parameters, manifest, records and code."""
    facts = {
        "parameters": parameters.to_json(),
        "manifest": dataset.manifest.digest,
        "parts": sorted((part.path, part.sha256) for part in dataset.parts),
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _path(work_dir: str) -> str:
    return storage.join(work_dir, "checkpoint.npz")


def save_state(work_dir: str, key: str, state: State) -> None:
    """Writes the state; an earlier one is replaced."""
    groups = {"weights": state.weights, "optimizer": state.optimizer, "best": state.best}
    arrays = {f"{name}/{number:04d}": value for name, group in groups.items() for number, value in enumerate(group)}
    about = json.dumps({"key": key, "best_epoch": state.best_epoch, "history": state.history})
    with storage.open_atomic(_path(work_dir)) as stream:
        np.savez(stream, about=np.frombuffer(about.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def load_state(work_dir: str, key: str) -> State | None:
    """The state that was saved under `key`, or None; a foreign or damaged one is left aside, and said so."""
    path = _path(work_dir)
    if storage.stat(path) is None:
        return None
    try:
        with storage.local_copy(path) as local, np.load(local, allow_pickle=False) as found:
            about = json.loads(bytes(found["about"]))
            if about["key"] != key:
                log.info("%s belongs to another training (parameters, records or code differ): starting anew", path)
                return None
            groups: dict[str, Weights] = {
                name: [found[entry] for entry in sorted(found.files) if entry.startswith(f"{name}/")]
                for name in ("weights", "optimizer", "best")
            }
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError) as error:
        log.warning("%s can't be read (%s): starting anew", path, error)
        return None
    return State(**groups, best_epoch=about["best_epoch"], history=about["history"])
