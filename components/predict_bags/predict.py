"""Predicts every patient of a tiled dataset that has no truth to be held against."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.explain.bags import check_bag
from components.explain.heatmaps import SlideTiles, split_by_slide, write_heatmap
from components.predict_bags.report import write_report
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import WorkError, name_first
from components.records.manifest import UNKNOWN_LABEL

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    from components.mil.inference import BagPrediction

log = logging.getLogger(__name__)
_PROGRESS_PATIENTS = 25

Predictor = Callable[[str, TiledDataset], "Iterator[BagPrediction]"]


@dataclass(frozen=True)
class AttendedSlide:
    """One slide of a prediction: its share of the patient's attention, and the box around its tiles, level-0 px."""

    image_id: str
    share: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class PatientPrediction:
    """What the model says of one patient.

    Attributes:
        label: as the manifest has it, `unknown` where it has none.
        probabilities: one a label of the model.
        predicted: the most probable label.
        tiles: how many tiles it rests on.
        slides: the most attended first.
    """

    patient_id: str
    label: str
    probabilities: tuple[float, ...]
    predicted: str
    tiles: int
    slides: tuple[AttendedSlide, ...]


@dataclass(frozen=True)
class Predicted:
    """What came of a prediction.

    Attributes:
        patients: in manifest order, those with a tile.
        without_tiles: the others' ids.
        labels: the model's.
        report: path of `report/index.html`.
        slides, tiles, mpp, tile_px, manifest_hash: of the dataset.
    """

    patients: list[PatientPrediction]
    without_tiles: list[str]
    labels: tuple[str, ...]
    report: str
    slides: int
    tiles: int
    mpp: float | None
    tile_px: int
    manifest_hash: str

    def facts(self) -> dict[str, Any]:
        """What `provenance.artifact_metadata` takes."""
        names = ("manifest_hash", "slides", "tiles", "mpp", "tile_px")
        return {"patients": len(self.patients), **{name: getattr(self, name) for name in names}}


def predict_slides(
    dataset_root: str,
    model_dir: str,
    out: str,
    *,
    heatmaps: bool = True,
    registered: str = "",
    predictor: Predictor | None = None,
) -> Predicted:
    """Writes `predictions.csv`, `heatmaps/` and `report/index.html` in `out`.

    Args:
        dataset_root: a tiled dataset; its labels and splits are not looked at.
        model_dir: the saved bag model.
        out: folder to write into; may be the dataset's own.
        heatmaps: whether every slide's heatmap is drawn; the report has pictures only then.
        registered: the model's resource name, for the report.
        predictor: yields every patient's bag; the saved model's where None.

    Raises:
        InputError: no model or dataset, or tiles of another size than the model's.
        WorkError: a record or prediction can't be used, or no patient has a tile.
    """
    dataset = TiledDataset(dataset_root)
    card = storage.read_json(storage.join(model_dir, "bagline.json"))
    labels = tuple(str(name) for name in card["label_names"])
    thumbnails, folder = dataset.thumbnails, storage.join(out, "heatmaps")
    everyone, drawn = dataset.patients(), set()
    patients: list[PatientPrediction] = []
    for bag in (predictor or _predict_with_model)(model_dir, dataset):
        check_bag(bag, len(labels))
        slides = split_by_slide(bag)
        patients.append(_describe(bag, slides, labels))
        for image_id, tiles in slides.items() if heatmaps else ():
            write_heatmap(folder, image_id, tiles, dataset.root, thumbnails.get(image_id))
            drawn.add(image_id)
        if len(patients) % _PROGRESS_PATIENTS == 0 or len(patients) == len(everyone):
            log.info("predicted %d of %d patients", len(patients), len(everyone))
    if not patients:
        raise WorkError("no patient has a tile to predict from", where=dataset.root, mend="look at ledger.jsonl")
    for row in dataset.manifest.rows if heatmaps else ():
        if row.image_id not in drawn:
            write_heatmap(folder, row.image_id, None, dataset.root, thumbnails.get(row.image_id))
    known = {patient.patient_id for patient in patients}
    without = [patient_id for patient_id in everyone if patient_id not in known]
    if without:
        log.warning("%d patients have no tile and no prediction: %s", len(without), name_first(without))
    write_predictions(storage.join(out, "predictions.csv"), patients, labels)
    done = Predicted(
        patients,
        without,
        labels,
        storage.join(out, "report", "index.html"),
        slides=len(dataset.manifest.rows),
        tiles=sum(part.tiles for part in dataset.parts),
        mpp=dataset.schema.mpp,
        tile_px=dataset.schema.tile_px,
        manifest_hash=dataset.manifest.digest,
    )
    write_report(done, dataset, card, folder if heatmaps else "", registered)
    return done


def write_predictions(path: str, patients: list[PatientPrediction], labels: tuple[str, ...]) -> None:
    """Writes `patient_id,label,split,prob_<class>…` as evaluation does, sorted by patient; `split` is empty."""
    with storage.open_atomic(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["patient_id", "label", "split", *(f"prob_{label}" for label in labels)])
        for p in sorted(patients, key=lambda p: p.patient_id):
            writer.writerow([p.patient_id, p.label, "", *(f"{value:.9g}" for value in p.probabilities)])


def _predict_with_model(model_dir: str, dataset: TiledDataset) -> Iterator[BagPrediction]:
    from components.mil.inference import load_bag_model, predict_bags

    yield from predict_bags(load_bag_model(model_dir), dataset, labelled=False)


def _describe(bag: BagPrediction, slides: dict[str, SlideTiles], labels: tuple[str, ...]) -> PatientPrediction:
    attended = []
    for tiles in slides.values():
        right, bottom = (tiles.x + tiles.width).max(), (tiles.y + tiles.height).max()
        box = (int(tiles.x.min()), int(tiles.y.min()), int(right), int(bottom))
        attended.append(AttendedSlide(tiles.image_id, float(tiles.attention.sum()), box))
    return PatientPrediction(
        bag.patient_id,
        bag.label or UNKNOWN_LABEL,
        tuple(float(value) for value in bag.probabilities),
        labels[int(bag.probabilities.argmax())],
        len(bag.attention),
        tuple(sorted(attended, key=lambda slide: -slide.share)),
    )
