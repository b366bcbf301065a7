"""Evaluates a tile classifier: one pass over the slides, then tile and slide AUC, FROC, heatmaps and the report."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate_tiles.heatmaps import write_lesion_map
from components.evaluate_tiles.lesions import load_truth, match_slide
from components.evaluate_tiles.predict import Predictor, SlidePrediction, predict_with_model
from components.evaluate_tiles.report import write_report
from components.evaluate_tiles.slides import CHOSEN, RULES, SlideRule, SlideScore, choose_rule, score_slide
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError
from components.records.schema import SCHEMA_VERSION
from components.statistics.clustered import clustered_auc
from components.statistics.froc import Froc, MatchedSlide, froc_curve, froc_interval

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    from components.mil.tiles import LeftOut

_LOG = logging.getLogger(__name__)
_PROGRESS_SLIDES = 25
SPLITS = ("val", "test")
PREDICTIONS = "tile_predictions.csv.gz"


@dataclass(frozen=True)
class TileEvaluationParameters:
    """What a user can set.

    Attributes:
        bootstrap_samples: cohorts drawn for the 95% intervals, 0 for none.
        slide_rule: how tiles make a slide's score: `max`, `mean_top_5` or `mean_top_20` of the highest, or
            `validation`: the best of these on the validation slides.
        detection_radius_um: of two tiles nearer than this only the surer is a detection, µm.
        min_tiles_per_slide: slides with fewer have too little tissue and are left out.
        negative_label: slides of this patient label without a mask hold no lesion.
        seed: of the bootstrap.
    """

    bootstrap_samples: int = 1000
    slide_rule: str = CHOSEN
    detection_radius_um: float = 190.0
    min_tiles_per_slide: int = 1
    negative_label: str = ""
    seed: int = 0

    def check(self) -> None:
        """Raises InputError where a value makes no sense."""
        if self.slide_rule not in (CHOSEN, *RULES):
            raise InputError(
                f"unknown slide_rule {self.slide_rule!r}", where="slide_rule", mend=f"use {', '.join((CHOSEN, *RULES))}"
            )
        for name, least in (("bootstrap_samples", 0), ("detection_radius_um", 0), ("min_tiles_per_slide", 1)):
            if not getattr(self, name) >= least:
                raise InputError(f"{getattr(self, name)} is below {least}", where=name, mend=f"give {least} or more")


@dataclass
class Found:
    """What the slides came to, as they passed.

    Attributes:
        slides: a score each. matched: FROC's, of slides whose truth is known. heatmaps: path of each picture.
        left_out: slides that took no part.
    """

    slides: list[SlideScore] = field(default_factory=list)
    matched: dict[str, MatchedSlide] = field(default_factory=dict)
    heatmaps: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    _labels: dict[str, list[NDArray[np.int8]]] = field(default_factory=dict)
    _probabilities: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    _patients: dict[str, list[str]] = field(default_factory=dict)

    def add_tiles(self, slide: SlidePrediction) -> None:
        """Keeps labels and probabilities of a slide's labelled tiles: 5 bytes a tile."""
        known = slide.tile_labels >= 0
        self._labels.setdefault(slide.split, []).append(slide.tile_labels[known])
        self._probabilities.setdefault(slide.split, []).append(slide.probabilities[known])
        self._patients.setdefault(slide.split, []).append(slide.patient_id)

    def tiles(self, split: str) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.str_]]:
        """Whether marked, probability and patient of each labelled tile of a split."""
        labels = self._labels.get(split, [])
        patients = np.repeat(np.array(self._patients.get(split, []), str), [len(each) for each in labels])
        probabilities = np.concatenate([np.zeros(0), *self._probabilities.get(split, [])])
        return np.concatenate([np.zeros(0, np.int8), *labels]) == 1, probabilities, patients


@dataclass(frozen=True)
class TileEvaluation:
    """What came of it: what `metrics.json` holds, and the path of the report."""

    metrics: dict[str, Any]
    report: str

    def flat_metrics(self) -> dict[str, float]:
        """`<split>_<metric>` to value for KFP's Metrics; undefined ones are left out."""
        flat = {}
        for split in SPLITS:
            section = self.metrics.get(split, {})
            values = {
                name: section.get(name) for name in ("n_slides", "n_patients", "n_tiles", "tile_auc", "slide_auc")
            }
            values["froc"] = (section.get("froc") or {}).get("score")
            flat.update({f"{split}_{name}": float(value) for name, value in values.items() if value is not None})
        return flat


def evaluate_tiles(
    dataset_root: str,
    model_dir: str,
    out: str,
    *,
    training_dir: str = "",
    validation: str = "",
    parameters: TileEvaluationParameters | None = None,
    predictor: Predictor | None = None,
) -> TileEvaluation:
    """Evaluates a tile classifier on the validation and test slides and writes what is known of it into `out`.

    That is `metrics.json`, `tile_predictions.csv.gz`, `slides.csv` with every slide of the two splits, used or left
    out with the reason, `heatmaps/` and `report/index.html`. Slides without a mask are predicted and drawn; they enter
    no metric.

    Args:
        dataset_root: a tiled dataset.
        model_dir: the saved tile classifier.
        out: folder to write into; may be the dataset's own.
        training_dir: folder with `history.json`, empty where there is none.
        validation: path of `validation.json`, empty where there is none.
        parameters: see there.
        predictor: yields every slide's prediction; the saved model's where None.

    Raises:
        InputError: a parameter makes no sense, or a path is wrong.
        WorkError: a record or prediction can't be used, or no slide has a tile.
    """
    from components.mil.tiles import index_slides

    parameters = parameters or TileEvaluationParameters()
    parameters.check()
    dataset = TiledDataset(dataset_root)
    slides, left_out = index_slides(
        dataset,
        SPLITS,
        min_tiles=parameters.min_tiles_per_slide,
        negative_label=parameters.negative_label,
        labelled=False,
    )
    if not slides:
        raise WorkError("no val or test slide has tiles to predict", where=dataset.root, mend="look at ledger.jsonl")
    found = Found(left_out=left_out)
    mpp = {entry.image_id: entry.mpp for entry in dataset.ledger}
    with _tile_predictions(storage.join(out, PREDICTIONS)) as writer:
        for number, slide in enumerate((predictor or predict_with_model)(model_dir, dataset, slides), start=1):
            _write_tiles(writer, slide)
            _add(found, slide, dataset, out, mpp.get(slide.image_id), parameters)
            if number % _PROGRESS_SLIDES == 0 or number == len(slides):
                _LOG.info("evaluated %d of %d slides", number, len(slides))
    rule = choose_rule(parameters.slide_rule, found.slides)
    metrics: dict[str, Any] = {}
    curves: dict[str, Froc] = {}
    for split in SPLITS:
        if any(slide.split == split for slide in found.slides):
            metrics[split], curves[split] = _measure(found, split, rule, parameters)
    metrics |= {
        "slide_rule": rule.to_json(),
        "left_out": [asdict(slide) for slide in found.left_out],
        "bootstrap_samples": parameters.bootstrap_samples,
        "manifest_hash": dataset.manifest.digest,
        "schema_version": SCHEMA_VERSION,
    }
    _write_slides(storage.join(out, "slides.csv"), found, rule)
    storage.write_json(storage.join(out, "metrics.json"), metrics)
    report = storage.join(out, "report", "index.html")
    write_report(report, dataset, found, metrics, curves, rule, training_dir=training_dir, validation=validation)
    return TileEvaluation(metrics, report)


def _add(
    found: Found,
    slide: SlidePrediction,
    dataset: TiledDataset,
    out: str,
    mpp: float | None,
    parameters: TileEvaluationParameters,
) -> None:
    thumbnail = dataset.thumbnails.get(slide.image_id)
    truth = load_truth(dataset, slide.image_id, thumbnail)
    known = bool((slide.tile_labels >= 0).all())
    lesion = None
    if known:
        lesion = bool((slide.tile_labels == 1).any()) or (truth is not None and bool(truth[0].any()))
        found.matched[slide.image_id] = match_slide(slide, truth, mpp, parameters.detection_radius_um)
    found.add_tiles(slide)
    found.heatmaps[slide.image_id] = write_lesion_map(
        storage.join(out, "heatmaps"), slide, dataset.root, thumbnail, truth
    )
    found.slides.append(
        SlideScore(
            slide.image_id,
            slide.patient_id,
            slide.label,
            slide.split,
            len(slide.x),
            int((slide.tile_labels == 1).sum()),
            lesion,
            score_slide(slide.probabilities),
        )
    )


def _measure(
    found: Found, split: str, rule: SlideRule, parameters: TileEvaluationParameters
) -> tuple[dict[str, Any], Froc]:
    draws = {"samples": parameters.bootstrap_samples, "seed": parameters.seed}
    here = [slide for slide in found.slides if slide.split == split]
    known = [slide for slide in here if slide.lesion is not None]
    tiles = clustered_auc(*found.tiles(split), **draws)  # type: ignore[arg-type]
    scores = np.array([slide.scores[rule.name] for slide in known], np.float64)
    truth = np.array([slide.lesion for slide in known], bool)
    slides = clustered_auc(truth, scores, [slide.patient_id for slide in known], **draws)
    matched = [found.matched[slide.image_id] for slide in known]
    curve = froc_curve(matched)
    interval = (
        froc_interval(matched, parameters.bootstrap_samples, parameters.seed) if curve.score is not None else None
    )
    return {
        "n_patients": len({slide.patient_id for slide in here}),
        "n_slides": len(here),
        "n_slides_with_lesion": int(truth.sum()),
        "n_slides_without_mask": len(here) - len(known),
        "n_slides_left_out": sum(slide.split == split for slide in found.left_out),
        "n_tiles": tiles["n"],
        "n_tiles_marked": tiles["positive"],
        "tile_auc": tiles["auc"],
        "tile_auc_ci95": tiles["ci95"],
        "slide_auc": slides["auc"],
        "slide_auc_ci95": slides["ci95"],
        "froc": {**curve.to_json(), "ci95": interval},
        "reasons": [each["reason"] for each in (tiles, slides) if each["reason"]],
    }, curve


@contextmanager
def _tile_predictions(path: str) -> Iterator[Any]:
    """A CSV writer into a gzip file: equal rows, equal bytes."""
    with storage.open_atomic(path) as stream, gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed:
        text = io.TextIOWrapper(packed, "utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image_id", "patient_id", "split", "x", "y", "width", "height", "tile_label", "prob_lesion"])
        yield writer
        text.flush()
        text.detach()


def _write_tiles(writer: Any, slide: SlidePrediction) -> None:
    columns = (slide.x, slide.y, slide.width, slide.height, slide.tile_labels, slide.probabilities)
    for x, y, width, height, label, probability in zip(*(column.tolist() for column in columns), strict=True):
        told = "" if label < 0 else label
        writer.writerow(
            [slide.image_id, slide.patient_id, slide.split, x, y, width, height, told, f"{probability:.6g}"]
        )


def _write_slides(path: str, found: Found, rule: SlideRule) -> None:
    with storage.open_atomic(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ["image_id", "patient_id", "split", "status", "reason", "tiles", "marked", "lesion", "prob_lesion"]
        )
        for slide in found.slides:
            lesion = "" if slide.lesion is None else int(slide.lesion)
            reason = "has no lesion mask" if slide.lesion is None else ""
            score = f"{slide.scores[rule.name]:.6g}"
            writer.writerow(
                [
                    slide.image_id,
                    slide.patient_id,
                    slide.split,
                    "used",
                    reason,
                    slide.tiles,
                    slide.marked,
                    lesion,
                    score,
                ]
            )
        for out in found.left_out:
            writer.writerow([out.image_id, out.patient_id, out.split, "left out", out.reason, out.tiles, "", "", ""])


def copy_report(evaluation: TileEvaluation, path: str) -> None:
    """Puts the report at a second place, such as KFP's HTML artifact."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    storage.write_bytes(path, storage.read_bytes(evaluation.report))
