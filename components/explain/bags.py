"""What must hold for a predicted bag before anything is drawn or measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from components.records.errors import WorkError

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    from components.mil.inference import BagPrediction


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
