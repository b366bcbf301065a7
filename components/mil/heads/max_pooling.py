"""Max pooling of instance logits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from components.mil.heads.protocol import CHUNK, BagHead, Floats, Pieces, mask_scores


@keras.saving.register_keras_serializable(package="bagline")
class MaxPooling(BagHead):
    """Each class takes its strongest instance (Ilse et al. 2018, eq. 5, on instance logits).

    Attention is the share of classes whose maximum an instance holds; instances that tie share it.
    """

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(classes, **options)
        self.classifier = keras.layers.Dense(classes, dtype="float32", name="classifier")

    def build(self, input_shape: Any) -> None:
        """Makes the classifier."""
        self.classifier.build((None, input_shape[-1]))
        self.built = True

    def call(self, instances: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits and attention of padded bags."""
        scores = mask_scores(self.classifier(instances), mask)
        logits = ops.max(scores, axis=1)
        holds = ops.cast(scores >= ops.expand_dims(logits, 1), "float32") * ops.cast(mask, "float32")[..., None]
        attention = ops.mean(holds / ops.maximum(ops.sum(holds, axis=1, keepdims=True), 1.0), axis=-1)
        return {"logits": logits, "attention": attention}

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """One bag in pieces of `chunk` instances."""
        scores = Pieces(instances, chunk).apply(self.classifier)
        logits = scores.max(axis=0)
        holds = (scores >= logits).astype(np.float32)
        return logits, (holds / holds.sum(axis=0)).mean(axis=1)
