"""Gathers what evaluation needs from the bags as they pass, one patient in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components.evaluate.predictions import AttendedSlide, Prediction, sort_predictions
from components.explain.attention import MaskAgreement, TopTile, TopTiles
from components.explain.heatmaps import SlideTiles, load_thumbnail, split_by_slide, write_heatmap
from components.explain.pictures import draw_tile_grid
from components.records import storage
from components.records.dataset import TiledDataset
from components.records.errors import WorkError

if TYPE_CHECKING:
    from components.mil.inference import BagPrediction

GALLERY_SLIDES = 24
_GALLERY_SIDE = 300


@dataclass(frozen=True)
class Collection:
    """What is kept of all patients.

    Attributes:
        predictions: sorted by split and patient.
        without_tiles: split of each patient that has no tile.
        agreement: of attention with the masks, for each split that has marked tiles.
        top_tiles: of the shown split, by label.
        gallery: data URI of the slide with its tile grid, by image id, in manifest order.
        shown: the split with heatmaps.
    """

    predictions: list[Prediction]
    without_tiles: dict[str, str]
    agreement: dict[str, MaskAgreement]
    top_tiles: dict[str, list[TopTile]]
    gallery: dict[str, str]
    shown: str


@dataclass
class Collector:
    """Takes bags one by one; writes the heatmaps of the shown split's slides as they pass."""

    dataset: TiledDataset
    out: str
    shown: str
    top_tiles: int = 12
    _predictions: dict[str, Prediction] = field(default_factory=dict)
    _agreement: dict[str, MaskAgreement] = field(default_factory=dict)
    _gallery: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._patients = self.dataset.patients()
        self._thumbnails = self.dataset.thumbnails
        self._picked = set(pick_gallery(self.dataset))
        self._top = TopTiles(keep=self.top_tiles)
        self._mapped: set[str] = set()

    def add(self, bag: BagPrediction) -> None:
        """Takes one patient's prediction; a bag without tiles counts as no prediction.

        Raises:
            WorkError: the patient is not in the manifest, or came before.
        """
        if not len(bag.attention):
            return
        if bag.patient_id not in self._patients or bag.patient_id in self._predictions:
            problem = "came twice" if bag.patient_id in self._predictions else "is not in split.csv"
            raise WorkError(
                f"patient {bag.patient_id} {problem}", where=self.dataset.root, mend="tile the slides again"
            )
        slides = split_by_slide(bag)
        attended = sorted((_describe(tiles) for tiles in slides.values()), key=lambda slide: -slide.share)
        self._predictions[bag.patient_id] = Prediction(
            bag.patient_id,
            bag.label,
            bag.split,
            tuple(float(value) for value in bag.probabilities),
            len(bag.attention),
            tuple(attended),
        )
        if (bag.tile_labels == 1).any():
            self._agreement.setdefault(bag.split, MaskAgreement()).add(bag)
        if bag.split == self.shown and self.top_tiles:
            self._top.add(bag)
        for image_id, tiles in slides.items():
            if bag.split == self.shown:
                self._write_heatmap(image_id, tiles)
            if image_id in self._picked:
                self._add_to_gallery(image_id, tiles)

    def finish(self) -> Collection:
        """What was gathered; writes the plain pictures of shown slides that have no tile."""
        for row in self.dataset.manifest.rows:
            if row.split == self.shown and row.image_id not in self._mapped:
                self._write_heatmap(row.image_id, None)
            if row.image_id in self._picked and row.image_id not in self._gallery:
                self._add_to_gallery(row.image_id, None)
        without = {p: rows[0].split for p, rows in self._patients.items() if p not in self._predictions}
        order = [row.image_id for row in self.dataset.manifest.rows]
        return Collection(
            sort_predictions(list(self._predictions.values())),
            without,
            {split: self._agreement[split] for split in ("train", "val", "test") if split in self._agreement},
            self._top.by_label(),
            {image_id: self._gallery[image_id] for image_id in order if image_id in self._gallery},
            self.shown,
        )

    def _write_heatmap(self, image_id: str, tiles: SlideTiles | None) -> None:
        self._mapped.add(image_id)
        folder = storage.join(self.out, "heatmaps")
        write_heatmap(folder, image_id, tiles, self.dataset.root, self._thumbnails.get(image_id))

    def _add_to_gallery(self, image_id: str, tiles: SlideTiles | None) -> None:
        thumbnail = self._thumbnails[image_id]
        picture = load_thumbnail(self.dataset.root, thumbnail)
        self._gallery[image_id] = draw_tile_grid(picture, tiles, thumbnail.downsample, _GALLERY_SIDE)


def pick_gallery(dataset: TiledDataset) -> list[str]:
    """At most 24 slides with a thumbnail: up to 6 that did not tile fully, the others evenly over the manifest."""
    thumbnails = dataset.thumbnails
    status = {entry.image_id: entry.status for entry in dataset.ledger}
    rows = [row for row in dataset.manifest.rows if row.image_id in thumbnails]
    odd = [row.image_id for row in rows if status.get(row.image_id, "tiled") != "tiled"][: GALLERY_SLIDES // 4]
    others = [row.image_id for row in rows if row.image_id not in odd]
    return odd + _evenly(others, GALLERY_SLIDES - len(odd))


def _describe(tiles: SlideTiles) -> AttendedSlide:
    box = (tiles.x.min(), tiles.y.min(), (tiles.x + tiles.width).max(), (tiles.y + tiles.height).max())
    left, top, right, bottom = (int(value) for value in box)
    return AttendedSlide(tiles.image_id, float(tiles.attention.sum()), (left, top, right, bottom))


def _evenly(items: list[str], count: int) -> list[str]:
    if len(items) <= count:
        return items
    return [items[number * len(items) // count] for number in range(count)]
