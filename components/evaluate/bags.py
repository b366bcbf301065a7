"""Where the predicted bags come from, and what must hold for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from components.records.dataset import TiledDataset
from components.records.errors import InputError, WorkError

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    from components.mil.inference import BagPrediction


Predictor = Callable[[str, TiledDataset], "Iterator[BagPrediction]"]


def predict_with_model(model_dir: str, dataset: TiledDataset) -> Iterator[BagPrediction]:
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


def check_bag(bag: BagPrediction, classes: int) -> None:
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
