"""Where the predicted bags come from, and what must hold for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from components.records.dataset import TiledDataset
from components.records.errors import InputError

if TYPE_CHECKING:  # importing it for real would import TensorFlow
    from components.mil.inference import BagPrediction


Predictor = Callable[[str, TiledDataset], "Iterator[BagPrediction]"]


def predict_with_model(model_dir: str, dataset: TiledDataset, embedded: str = "") -> Iterator[BagPrediction]:
    """Predicts every patient of every split with a saved bag model.

    Args:
        model_dir: the model.
        dataset: whose bags are predicted.
        embedded: the dataset's embeddings, read instead of tiles where they are of the model's encoder.

    Raises:
        InputError: the model was trained on other labels than the dataset's.
    """
    from components.mil.inference import fitting_embeddings, load_bag_model, predict_bags

    model = load_bag_model(model_dir)
    if tuple(model.label_names) != dataset.schema.labels:
        raise InputError(
            f"knows the labels {', '.join(model.label_names)}, but the records have {', '.join(dataset.schema.labels)}",
            where=model_dir,
            mend="evaluate it on the records it was trained for",
        )
    yield from predict_bags(model, dataset, embedded=fitting_embeddings(model, dataset, embedded))
