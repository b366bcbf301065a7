"""The probability of each tile, slide by slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.explain.heatmaps import SlideTiles
from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    from components.mil.tiles import LabelledSlide


@dataclass(frozen=True)
class SlidePrediction:
    """One slide's tiles in file order.

    Attributes:
        label, split: of its patient, as in the manifest.
        x, y, width, height: int64 [n], level-0 px.
        tile_labels: int8 [n], -1 without a mask.
        tissue: float32 [n].
        probabilities: float32 [n].
    """

    image_id: str
    patient_id: str
    label: str
    split: str
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    tile_labels: NDArray[np.int8]
    tissue: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def as_tiles(self) -> SlideTiles:
        """As heatmaps take it: coloured by probability."""
        zeros = np.zeros(len(self.x))
        return SlideTiles(
            self.image_id,
            self.x,
            self.y,
            self.width,
            self.height,
            self.probabilities,
            zeros,
            self.probabilities,
            self.tissue,
            self.tile_labels,
        )


Predictor = Callable[[str, TiledDataset, "Sequence[LabelledSlide]"], Iterator[SlidePrediction]]


def predict_with_model(
    model_dir: str, dataset: TiledDataset, slides: Sequence[LabelledSlide]
) -> Iterator[SlidePrediction]:
    """Every slide through a saved tile classifier, one slide's figures in memory at a time.

    Raises:
        InputError: there is no tile classifier, or it takes tiles of another size.
        WorkError: a part is missing or damaged, or the model's output is no probability.
    """
    from components.mil.tile_inference import score_tiles
    from components.mil.tile_model import load_tile_model

    model, card = load_tile_model(model_dir)
    if int(card["tile_px"]) != dataset.schema.tile_px:
        raise InputError(
            f"tiles are {dataset.schema.tile_px} px, the model takes {card['tile_px']} px",
            where=dataset.root,
            mend="evaluate it on tiles like those it was trained on",
        )
    for slide, facts in zip(slides, score_tiles(model, dataset.schema.tile_px, slides), strict=True):
        yield make_prediction(slide, facts)


def make_prediction(slide: LabelledSlide, facts: dict[str, NDArray[Any]]) -> SlidePrediction:
    """A slide's prediction from the figures of its tiles; raises WorkError where one is no probability."""
    found = facts["probability"]
    if not (np.isfinite(found).all() and (found >= 0).all() and (found <= 1).all()):
        raise WorkError("the model's output is no probability", where=slide.image_id, mend="train again")
    return SlidePrediction(
        slide.image_id,
        slide.patient_id,
        slide.label,
        slide.split,
        facts["x"],
        facts["y"],
        facts["width"],
        facts["height"],
        slide.tile_labels,
        facts["tissue"],
        found.astype(np.float32),
    )
