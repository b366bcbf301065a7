"""What evaluation needs of a predicted bag, and the predictor that yields them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.records.dataset import RecordSpan, TiledDataset
from components.records.errors import InputError, WorkError


class Bag(Protocol):
    """One patient's prediction from all tiles; `components.mil.inference.BagPrediction` is one.

    Attributes:
        probabilities: float [classes], in the order of the dataset's labels.
        image_ids: [n] the slide of each tile.
        x, y, width, height: int64 [n], level-0 px.
        tissue: float32 [n], 0–1.
        attention: float32 [n], summing to 1 over the patient.
        tile_labels: int8 [n], -1 where the record has none.
        spans: [n] where each tile's record lies.
    """

    @property
    def patient_id(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def probabilities(self) -> NDArray[np.float32]: ...
    @property
    def image_ids(self) -> tuple[str, ...]: ...
    @property
    def x(self) -> NDArray[np.int64]: ...
    @property
    def y(self) -> NDArray[np.int64]: ...
    @property
    def width(self) -> NDArray[np.int64]: ...
    @property
    def height(self) -> NDArray[np.int64]: ...
    @property
    def tissue(self) -> NDArray[np.float32]: ...
    @property
    def attention(self) -> NDArray[np.float32]: ...
    @property
    def tile_labels(self) -> NDArray[np.int8]: ...
    @property
    def spans(self) -> tuple[RecordSpan, ...]: ...


Predictor = Callable[[str, TiledDataset], Iterator[Bag]]


def predict_with_model(model_dir: str, dataset: TiledDataset) -> Iterator[Bag]:
    """Predicts every patient of every split with a saved bag model.

    Raises:
        InputError: the model was trained on other labels than the dataset's.
    """
    from components.mil.inference import load_bag_model, predict_bags

    model = load_bag_model(model_dir)
    if tuple(model.label_names) != dataset.schema.labels:
        raise InputError(
            f"knows the labels {', '.join(model.label_names)}, but the records have {', '.join(dataset.schema.labels)}",
            where=model_dir,
            mend="evaluate it on the records it was trained for",
        )
    yield from predict_bags(model, dataset)


def check_bag(bag: Any, classes: int) -> None:
    """Raises WorkError where a prediction is not finite, or has another number of classes than the dataset."""
    where = f"patient {bag.patient_id}"
    if np.shape(bag.probabilities) != (classes,):
        raise WorkError(
            f"the model gave {np.size(bag.probabilities)} probabilities for {classes} labels",
            where=where,
            mend="evaluate a model that was trained on these labels",
        )
    if not (np.isfinite(bag.probabilities).all() and np.isfinite(bag.attention).all()):
        raise WorkError("the model's output is not finite", where=where, mend="train again, with a lower learning rate")
    if not np.sum(bag.probabilities) > 0 or np.min(bag.probabilities) < 0:
        raise WorkError("the model's output is no probability", where=where, mend="train again")
