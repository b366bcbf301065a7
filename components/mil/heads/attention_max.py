"""Gated attention beside the strongest value of each feature."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from components.mil.heads.gated_attention import GatedAttention
from components.mil.heads.protocol import CHUNK, Floats, Pieces, mask_scores, softmax_over_instances, stream_softmax
from components.mil.standardise import Standardise


@keras.saving.register_keras_serializable(package="bagline")
class AttentionMax(GatedAttention):
    """What gated attention pools (Ilse et al. 2018, eq. 7 and 9) and each feature's maximum (eq. 5), side by side.

    z = [Σ_k a_k h_k, max_k h_k], then one dense layer: a bag shows by what most instances have as by what one has
    alone. No paper's head; bag statistics of this kind are what a logistic regression on small sets does well with.

    Training brings z to mean 0 and deviation 1 once, as fresh weights pool it over the training bags (`scale`), so that
    neither half outweighs the other.

    Args:
        classes: number of classes.
        options: of `GatedAttention`.
    """

    pooled_parts = 2

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(classes, **options)
        self.scale = Standardise(name="scale")

    def build(self, input_shape: Any) -> None:
        """Makes V, U, w, the scale and the classifier."""
        super().build(input_shape)
        self.scale.build((None, 2 * input_shape[-1]))

    def pool(self, instances: Any, mask: Any) -> tuple[Any, Any]:
        """Z [b, 2 d] and attention [b, n] of padded bags."""
        attention = softmax_over_instances(self.score(instances), mask)
        pooled = ops.einsum("bn,bnd->bd", attention, ops.cast(instances, "float32"))
        strongest = ops.max(mask_scores(instances, mask), axis=1)
        return ops.concatenate([pooled, strongest], axis=-1), attention

    def call(self, instances: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits and attention of padded bags."""
        pooled, attention = self.pool(instances, mask)
        return {"logits": self.classifier(self.drop(self.scale(pooled), training=training)), "attention": attention}

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """Three passes over one bag: scores and their softmax, the weighted sum, the maxima."""
        pieces = Pieces(instances, chunk)
        weights, pooled = stream_softmax(pieces.apply(self.score), pieces)
        strongest = np.max([piece.max(axis=0) for piece in pieces], axis=0)
        both = self.scale(ops.convert_to_tensor(np.concatenate([pooled, strongest])[None].astype(np.float32)))
        return ops.convert_to_numpy(self.classifier(both))[0], weights
