"""The run report: one HTML file that opens offline, from split to verdict."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import jinja2

from components.evaluate.collect import Collection
from components.evaluate.report_confidence import describe_confidence
from components.evaluate.report_patients import describe_patients, describe_top_tiles
from components.evaluate.report_steps import (
    describe_split_table,
    describe_tiling,
    describe_training,
    describe_validation,
)
from components.explain.page import read_style
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.provenance import code_version
from components.records.schema import SPLITS
from components.statistics.charts import draw_roc, draw_tile_counts
from components.statistics.curves import Curves

_NAMES = {
    "auc": ("AUC", "share of patient pairs in the right order; 0.5 is chance"),
    "accuracy": ("Accuracy", "share of patients whose most probable label is right"),
    "balanced_accuracy": ("Balanced accuracy", "mean of the labels' recalls"),
    "precision": ("Precision", "of the patients called positive, how many are"),
    "recall": ("Recall", "of the positive patients, how many were found"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "log_loss": ("Log loss", "lower is better; punishes sure mistakes"),
    "weighted_log_loss": (
        "Weighted log loss",
        "the STRIP AI metric: mean of the labels' log losses; 0.693 knows nothing",
    ),
    "brier": ("Brier score", "mean squared error of the probability; lower is better"),
    "ece": ("Calibration error", "ECE, 10 bins: how far probabilities are from what happens; lower is better"),
    "ece_adaptive": ("Adaptive calibration error", "the same with equally many patients a bin; lower is better"),
}
_SPLIT_NAMES = {"train": "Training", "val": "Validation", "test": "Test"}


def write_report(
    path: str,
    dataset: TiledDataset,
    found: Collection,
    metrics: dict[str, Any],
    curves: Curves,
    *,
    heatmaps: str,
    model_dir: str,
    training_dir: str = "",
    validation: str = "",
) -> None:
    """Writes the report of a whole run; the same inputs give the same bytes.

    Args:
        path: the HTML file.
        dataset: the tiled dataset.
        found: what was gathered from the bags.
        metrics: what `metrics.json` holds.
        curves: of the shown split.
        heatmaps: folder of the heatmaps just written.
        model_dir: for `bagline.json`, where the model has one.
        training_dir: for `history.json`, empty where there is none.
        validation: path of `validation.json`, empty where there is none.
    """
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = show_number
    environment.filters["count"] = lambda value: f"{value:,}".replace(",", "\u202f")
    tiling = describe_tiling(dataset)
    validated = describe_validation(validation)
    page = environment.get_template("report.html.j2").render(
        style=read_style(),
        facts=_facts(dataset, model_dir, tiling, validated),
        totals={
            "patients": len(dataset.patients()),
            "slides": len(dataset.manifest.rows),
            "tiles": sum(part.tiles for part in dataset.parts),
        },
        labels=curves.labels,
        gate=metrics["gate"],
        shown=curves.split,
        shown_name=_SPLIT_NAMES[curves.split].lower(),
        of_shown=metrics.get(curves.split, {}),
        split=describe_split_table(dataset),
        split_names=_SPLIT_NAMES,
        tiling=tiling,
        tile_counts=draw_tile_counts(tiling["counts"]),
        gallery=_gallery(dataset, found),
        validation=validated,
        training=describe_training(training_dir),
        metrics=_metrics_table(metrics),
        attention=metrics["attention"],
        roc=draw_roc(curves),
        confidence=describe_confidence(metrics, curves),
        confusion=_confusion(curves),
        patients=describe_patients(dataset, found, heatmaps),
        top_tiles=describe_top_tiles(found),
        without_tiles=sorted(found.without_tiles.items()),
    )
    storage.write_text(path, page)


def show_number(value: Any, digits: int = 3) -> str:
    """A number with fixed digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _facts(
    dataset: TiledDataset, model_dir: str, tiling: dict[str, Any], validation: dict[str, Any] | None
) -> list[tuple[str, str]]:
    schema = dataset.schema
    facts = [
        ("Slides", ", ".join(f"{number} {status}" for status, number in tiling["status"])),
        ("Records", f"validation: {validation['verdict']}" if validation else "not validated"),
        ("Split manifest", f"sha256:{dataset.manifest.digest[:16]}…"),
        ("Labels", ", ".join(schema.labels)),
        ("Tile", f"{schema.tile_px} px" + (f" at {schema.mpp:g} µm/px" if schema.mpp else "")),
        ("Tiled by", schema.code_version),
    ]
    described = storage.join(model_dir, "bagline.json")
    if storage.stat(described) is not None:
        model = storage.read_json(described)
        chosen = model.get("parameters") or {}
        named = (
            ("Head", chosen.get("head")),
            ("Encoder", chosen.get("encoder")),
            ("Trained by", model.get("code_version")),
        )
        facts += [(name, PurePath(str(value)).name) for name, value in named if value]
    return [*facts, ("Evaluated by", code_version())]


def _gallery(dataset: TiledDataset, found: Collection) -> list[dict[str, Any]]:
    ledger = {entry.image_id: entry for entry in dataset.ledger}
    rows = {row.image_id: row for row in dataset.manifest.rows}
    return [
        {
            "image_id": image_id,
            "label": rows[image_id].label,
            "status": ledger[image_id].status if image_id in ledger else "",
            "tiles": ledger[image_id].tiles if image_id in ledger else 0,
            "uri": uri,
        }
        for image_id, uri in found.gallery.items()
    ]


def _metrics_table(metrics: dict[str, Any]) -> dict[str, Any]:
    splits = [split for split in SPLITS if split in metrics]
    rows = []
    for key, (name, meaning) in _NAMES.items():
        cells = [(metrics[split][key], metrics[split]["ci95"].get(key)) for split in splits]
        rows.append({"name": name, "meaning": meaning, "cells": cells})
    return {
        "splits": splits,
        "rows": rows,
        "patients": [metrics[split]["n_patients"] for split in splits],
        "samples": metrics["bootstrap_samples"],
        "positive": metrics["positive_label"],
    }


def _confusion(curves: Curves) -> list[dict[str, Any]]:
    rows = []
    for label, counts in zip(curves.labels, curves.confusion, strict=True):
        total = sum(counts)
        shares = [count / total if total else 0.0 for count in counts]
        rows.append({"label": label, "cells": list(zip(counts, shares, strict=True))})
    return rows
