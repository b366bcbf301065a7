"""One run's OUT folder, read: rows, ledger, predictions, and the files that the dashboard shows."""

from __future__ import annotations

import csv
import io
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from components.records import storage
from components.records.dataset import Thumbnail, TiledDataset
from components.records.errors import InputError
from components.records.ledger import LedgerEntry
from components.records.manifest import Row
from components.viewer.lineage import read_events

_PROBABILITY, _CALIBRATED = "prob_", "calibrated_"
_GEOJSON = ".geojson"


@dataclass(frozen=True)
class Prediction:
    """One patient's line of `predictions.csv`; both mappings go from label to probability."""

    patient_id: str
    label: str
    split: str
    probabilities: dict[str, float]
    calibrated: dict[str, float] = field(default_factory=dict)

    @property
    def predicted(self) -> str:
        """The most probable label; of equal ones the first."""
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    @property
    def loss(self) -> float:
        """-ln of the true label's probability."""
        return -math.log(max(self.probabilities.get(self.label, 0.0), 1e-15))


@dataclass(frozen=True)
class Run:
    """A run's folder. What a run that is not finished lacks is empty."""

    key: str
    root: str
    dataset: TiledDataset
    ledger: dict[str, LedgerEntry]
    thumbnails: dict[str, Thumbnail]
    predictions: dict[str, Prediction]
    metrics: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The manifest's rows."""
        return self.dataset.manifest.rows

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in index order."""
        return self.dataset.schema.labels

    @property
    def images_root(self) -> str:
        """Where the tiling found the slides, as its lineage says; empty where that isn't known."""
        for event in reversed(self.events):
            task = event.get("run", {}).get("facets", {}).get("bagline_task", {})
            root = (task.get("parameters") or {}).get("images_root")
            if isinstance(root, str) and root:
                return root
        return ""

    @cached_property
    def history(self) -> dict[str, Any]:
        """`training/history.json`."""
        return _read_dict(storage.join(self.root, "training", "history.json"))

    @cached_property
    def failed_tiles(self) -> list[dict[str, Any]]:
        """The lines of `failed_tiles.jsonl`."""
        path = storage.join(self.root, "failed_tiles.jsonl")
        return storage.read_json_lines(path) if storage.stat(path) is not None else []

    @cached_property
    def heatmaps(self) -> dict[str, str]:
        """Path of the attention of each image id that has one."""
        folder = storage.join(self.root, "heatmaps")
        if not storage.is_remote(folder) and not os.path.isdir(folder):
            return {}
        files = storage.list_files(folder)
        return {name[: -len(_GEOJSON)]: info.path for name, info in files.items() if name.endswith(_GEOJSON)}

    @cached_property
    def report(self) -> str:
        """Path of `report/index.html`, empty where there is none."""
        path = storage.join(self.root, "report", "index.html")
        return path if storage.stat(path) is not None else ""


def is_run(place: str) -> bool:
    """Whether a folder holds tiled records."""
    return storage.stat(storage.join(place, "schema.json")) is not None


def open_run(root: str, key: str) -> Run:
    """Reads a run's folder.

    Raises:
        InputError: it holds no tiled records, or a file in it is malformed.
    """
    dataset = TiledDataset(root)
    predictions = storage.join(root, "predictions.csv")
    return Run(
        key,
        root,
        dataset,
        {entry.image_id: entry for entry in dataset.ledger} if _has(root, "ledger.jsonl") else {},
        dataset.thumbnails if _has(root, "thumbnails.json") else {},
        read_predictions(predictions) if storage.stat(predictions) is not None else {},
        _read_dict(storage.join(root, "metrics.json")),
        [] if storage.is_remote(root) else read_events(os.path.join(root, "lineage")),
    )


def read_predictions(path: str) -> dict[str, Prediction]:
    """`predictions.csv` by patient id.

    Raises:
        InputError: it is malformed.
    """
    found = {}
    try:
        for line in csv.DictReader(io.StringIO(storage.read_bytes(path).decode("utf-8"), newline="")):
            named = {
                kind: {name[len(kind) :]: float(value) for name, value in line.items() if name.startswith(kind)}
                for kind in (_PROBABILITY, _CALIBRATED)
            }
            if not named[_PROBABILITY]:
                raise ValueError("no column prob_<label>")
            found[line["patient_id"]] = Prediction(
                line["patient_id"], line["label"], line["split"], named[_PROBABILITY], named[_CALIBRATED]
            )
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(f"is malformed ({error})", where=path, mend="run the evaluation again") from None
    return found


def _has(root: str, name: str) -> bool:
    return storage.stat(storage.join(root, name)) is not None


def _read_dict(path: str) -> dict[str, Any]:
    found = storage.read_json(path) if storage.stat(path) is not None else {}
    return found if isinstance(found, dict) else {}
