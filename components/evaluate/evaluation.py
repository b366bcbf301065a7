"""Evaluates a model on a tiled dataset: one pass over the patients, then metrics, gate and report."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass
from typing import Any

from components.evaluate.bags import Predictor, predict_with_model
from components.evaluate.collect import Collection, Collector
from components.evaluate.comparison import compare_with_previous
from components.evaluate.gate import Verdict, check_gate, judge, read_previous
from components.evaluate.predictions import as_arrays, write_predictions
from components.evaluate.report import write_report
from components.explain.bags import check_bag
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError
from components.records.schema import SCHEMA_VERSION, SPLITS
from components.statistics.confidence import CALIBRATED, Cohort, Confidence, check_confidence, learn_confidence
from components.statistics.curves import Curves
from components.statistics.metrics import METRICS, describe_split

_LOG = logging.getLogger(__name__)
_PROGRESS_PATIENTS = 25


@dataclass(frozen=True)
class EvaluationParameters:
    """What a user can set.

    Attributes:
        bootstrap_samples: cohorts drawn for the 95% intervals, 0 for none.
        gate_metric, gate_split: the metric, of which split, that decides on `blessed`.
        gate_threshold: what it must beat, 0 for nothing.
        previous_metrics: `metrics.json` of the model to beat, or its run's folder; empty for none.
        calibration: `temperature`, fitted on validation, or `none`.
        threshold_rule: how validation chooses the decision threshold: `youden`, `sensitivity`, or `half` for 0.5.
        wanted_sensitivity: for the rule `sensitivity`.
        seed: of the bootstrap.
        top_tiles: tiles shown a label.
    """

    bootstrap_samples: int = 1000
    gate_metric: str = "auc"
    gate_split: str = "test"
    gate_threshold: float = 0.0
    previous_metrics: str = ""
    calibration: str = "temperature"
    threshold_rule: str = "youden"
    wanted_sensitivity: float = 0.95
    seed: int = 0
    top_tiles: int = 12

    def check(self) -> None:
        """Raises InputError where a value makes no sense."""
        check_gate(self.gate_metric, self.gate_split, self.gate_threshold)
        check_confidence(self.calibration, self.threshold_rule, self.wanted_sensitivity)
        if self.bootstrap_samples < 0:
            raise InputError(
                f"{self.bootstrap_samples} is negative", where="bootstrap_samples", mend="give 0 or more, such as 1000"
            )
        if self.top_tiles < 0:
            raise InputError(f"{self.top_tiles} is negative", where="top_tiles", mend="give 0 or more, such as 12")


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        metrics: what `metrics.json` holds.
        verdict: the gate's.
        curves: of the split that is shown.
        report: path of `report/index.html`.
    """

    metrics: dict[str, Any]
    verdict: Verdict
    curves: Curves
    report: str

    @property
    def blessed(self) -> bool:
        """Whether the model may be used."""
        return self.verdict.blessed

    def flat_metrics(self) -> dict[str, float]:
        """`<split>_<metric>` to value for KFP's Metrics: every one finite, undefined ones left out."""
        flat = {}
        for split in SPLITS:
            section = self.metrics.get(split, {})
            for name in ("n_patients", *METRICS):
                if section.get(name) is not None:
                    flat[f"{split}_{name}"] = float(section[name])
            interval = section.get("auc_ci95")
            if interval is not None:
                flat[f"{split}_auc_ci95_low"], flat[f"{split}_auc_ci95_high"] = interval
            flat.update(_flatten_confidence(split, section))
            pooled = self.metrics["attention"].get(split, {}).get("auc_pooled")
            if pooled is not None:
                flat[f"{split}_attention_auc"] = pooled
        return {**flat, "blessed": float(self.blessed)}


def evaluate(
    dataset_root: str,
    model_dir: str,
    out: str,
    *,
    training_dir: str = "",
    validation: str = "",
    split_table: str = "",
    embedded: str = "",
    parameters: EvaluationParameters | None = None,
    predictor: Predictor | None = None,
) -> Evaluation:
    """Evaluates a model and writes what is known of it into `out`.

    That is `metrics.json`, `predictions.csv`, `calibration.json`, `heatmaps/` and `report/index.html`. Metrics are of
    the model's own probabilities; the `calibrated` ones stand beside them. Temperature and threshold come from
    the validation split alone.

    A model that is not blessed is no error here: everything is written, and the caller decides. Patients none of
    whose slides gave a tile are counted (`n_patients_without_tiles`) and named in the report; they enter no metric.

    Args:
        dataset_root: a tiled dataset.
        model_dir: the saved bag model.
        out: folder to write into; may be the dataset's own.
        training_dir: folder with `history.json`, empty where there is none.
        validation: path of `validation.json`, empty where there is none.
        split_table: a split manifest that counts instead of the dataset's, such as a fold's; empty for none. Patients
            without a split in it are predicted, and enter no metric.
        embedded: the dataset's embeddings, read instead of tiles where the model's encoder made them; empty for none.
        parameters: see there.
        predictor: yields every patient's bag of a dataset; the saved model's where None.

    Raises:
        InputError: a parameter makes no sense, a path is wrong, or the model knows other labels.
        WorkError: a record or prediction can't be used, or no patient has a tile.
    """
    parameters = parameters or EvaluationParameters()
    parameters.check()
    previous = read_previous(parameters.previous_metrics)
    dataset = TiledDataset(dataset_root, split_table)
    if len(dataset.schema.labels) < 2:
        raise InputError("has one label only", where=dataset.path("split.csv"), mend="a classifier needs two or more")
    if not split_table:
        _check_splits(dataset)
    shown = _shown_split(dataset, parameters.gate_split)
    collector = Collector(dataset, out, shown, top_tiles=parameters.top_tiles)
    patients = len(dataset.patients())
    predict = predictor or functools.partial(predict_with_model, embedded=embedded)
    for number, bag in enumerate(predict(model_dir, dataset), start=1):
        check_bag(bag, len(dataset.schema.labels))
        collector.add(bag)
        if number % _PROGRESS_PATIENTS == 0 or number == patients:
            _LOG.info("evaluated %d of %d patients", number, patients)
    found = collector.finish()
    if not found.predictions:
        raise WorkError("no patient has a tile to predict from", where=dataset.root, mend="look at ledger.jsonl")
    labels = dataset.schema.labels
    cohorts = {split: as_arrays([p for p in found.predictions if p.split == split], labels) for split in SPLITS}
    confidence = learn_confidence(
        cohorts,
        len(labels),
        calibration=parameters.calibration,
        threshold_rule=parameters.threshold_rule,
        wanted_sensitivity=parameters.wanted_sensitivity,
    )
    metrics = _measure_splits(dataset, found, cohorts, confidence, parameters)
    verdict = judge(
        metrics,
        metric=parameters.gate_metric,
        split=parameters.gate_split,
        threshold=parameters.gate_threshold,
        previous=previous,
    )
    metrics["gate"] = verdict.to_json()
    metrics["choice"] = _read_choice(training_dir)
    metrics["comparison"] = compare_with_previous(
        parameters.previous_metrics, found.predictions, labels, parameters.gate_split
    )
    curves = confidence.draw(shown, labels, *cohorts[shown])
    write_predictions(
        storage.join(out, "predictions.csv"), found.predictions, labels, _calibrated(found, labels, confidence)
    )
    storage.write_json(storage.join(out, "calibration.json"), confidence.calibration.to_json())
    storage.write_json(storage.join(out, "metrics.json"), metrics)
    report = storage.join(out, "report", "index.html")
    write_report(
        report,
        dataset,
        found,
        metrics,
        curves,
        heatmaps=storage.join(out, "heatmaps"),
        model_dir=model_dir,
        training_dir=training_dir,
        validation=validation,
    )
    return Evaluation(metrics, verdict, curves, report)


def _check_splits(dataset: TiledDataset) -> None:
    lines = [str(row.line) for row in dataset.manifest.rows if not row.split]
    if lines:
        raise InputError(
            f"{len(lines)} rows have no split (the first on line {lines[0]})",
            where=dataset.path("split.csv"),
            mend="run the split step first",
        )


def _shown_split(dataset: TiledDataset, gate_split: str) -> str:
    """The split with heatmaps and curves: test, or where there is none the gate's."""
    return "test" if dataset.patients("test") else gate_split


def _measure_splits(
    dataset: TiledDataset,
    found: Collection,
    cohorts: dict[str, Cohort],
    confidence: Confidence,
    parameters: EvaluationParameters,
) -> dict[str, Any]:
    labels = dataset.schema.labels
    draws = {"samples": parameters.bootstrap_samples, "seed": parameters.seed}
    metrics: dict[str, Any] = {}
    for split in SPLITS:
        if not dataset.patients(split):
            continue
        truth, probabilities = cohorts[split]
        metrics[split] = {
            **describe_split(truth, probabilities, **draws),
            **confidence.describe(labels, truth, probabilities, **draws),
            "n_patients_without_tiles": sum(s == split for s in found.without_tiles.values()),
            "n_by_label": {label: int((truth == number).sum()) for number, label in enumerate(labels)},
        }
    return {
        **metrics,
        "calibration": confidence.calibration.to_json(),
        "threshold": confidence.threshold.to_json(),
        "attention": {split: agreement.to_json() for split, agreement in found.agreement.items()},
        "labels": list(labels),
        "positive_label": labels[1] if len(labels) == 2 else None,
        "bootstrap_samples": parameters.bootstrap_samples,
        "manifest_hash": dataset.manifest.digest,
        "schema_version": SCHEMA_VERSION,
    }


def _read_choice(training_dir: str) -> dict[str, Any] | None:
    """Which of a grid of hyper-parameters validation chose; None where there was no choice."""
    path = storage.join(training_dir, "choice.json") if training_dir else ""
    return dict(storage.read_json(path)) if path and storage.stat(path) is not None else None


def _calibrated(found: Collection, labels: tuple[str, ...], confidence: Confidence) -> dict[str, list[float]]:
    """Patient id → calibrated probabilities; empty without a calibration."""
    values = confidence.calibration.apply(as_arrays(found.predictions, labels)[1])
    if values is None:
        return {}
    return {p.patient_id: row for p, row in zip(found.predictions, values.tolist(), strict=True)}


def _flatten_confidence(split: str, section: dict[str, Any]) -> dict[str, float]:
    found = {f"calibrated_{name}": (section.get("calibrated") or {}).get(name) for name in CALIBRATED}
    found |= {name: (section.get("at_threshold") or {}).get(name) for name in ("sensitivity", "specificity")}
    found["aurc"] = (section.get("abstention") or {}).get("aurc")
    return {f"{split}_{name}": float(value) for name, value in found.items() if value is not None}


def copy_report(evaluation: Evaluation, path: str) -> None:
    """Puts the report at a second place, such as KFP's HTML artifact."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    storage.write_bytes(path, storage.read_bytes(evaluation.report))
