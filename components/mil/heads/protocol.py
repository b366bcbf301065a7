"""What every head offers, and the attention pooling that most of them share."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

Floats = NDArray[np.float32]
CHUNK = 8192


def softmax_over_instances(scores: Any, mask: Any) -> Any:
    """Softmax over the unmasked instances of each bag.

    Args:
        scores: [b, n], any float dtype.
        mask: bool [b, n], True where there is an instance.

    Returns:
        float32 [b, n]: sums to 1 over the unmasked instances, 0 on the others; all 0 for a bag without any.
    """
    scores = ops.cast(scores, "float32")
    scores = ops.where(mask, scores, ops.full_like(scores, -1e30))
    weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True)) * ops.cast(mask, "float32")
    return weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-12)


class BagHead(keras.layers.Layer):
    """A MIL head: `head(instances [b, n, d], mask bool [b, n])` gives a dict.

    `logits` float32 [b, classes]; `attention` float32 [b, n], which sums to 1 over the unmasked instances and is 0
    elsewhere. Losses of its own a head gives through `add_loss`.
    """

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.classes = classes

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "classes": self.classes}

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """One bag of any size: logits [classes] and attention [n] of instances [n, d].

        A head whose pooling can be done piece by piece overrides this; here the bag goes through in one.
        """
        out = self(ops.convert_to_tensor(instances[None]), ops.ones((1, len(instances)), "bool"), training=False)
        return ops.convert_to_numpy(out["logits"])[0], ops.convert_to_numpy(out["attention"])[0]


class PoolingHead(BagHead):
    """Logits of the attention-weighted mean of the instances: a subclass only says how an instance scores.

    z = Σ_k a_k h_k with a = softmax(score(h)) (Ilse et al. 2018, eq. 7), then one dense layer.

    Args:
        classes: number of classes.
        dropout: share of z's values dropped in training.
    """

    def __init__(self, classes: int, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(classes, **options)
        self.dropout = dropout
        self.drop = keras.layers.Dropout(dropout, name="drop", seed=0)
        self.classifier = keras.layers.Dense(classes, dtype="float32", name="classifier")

    def build(self, input_shape: Any) -> None:
        """Makes the weights for instances of `input_shape` [b, n, d]."""
        self.classifier.build((None, input_shape[-1]))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "dropout": self.dropout}

    def score(self, instances: Any) -> Any:
        """Unnormalised attention [..., n] of instances [..., n, d]."""
        raise NotImplementedError

    def call(self, instances: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits and attention of padded bags."""
        attention = softmax_over_instances(self.score(instances), mask)
        pooled = ops.einsum("bn,bnd->bd", attention, ops.cast(instances, "float32"))
        return {"logits": self.classifier(self.drop(pooled, training=training)), "attention": attention}

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """Two passes over one bag: scores and their softmax, then the weighted sum; float64 in between."""
        pieces = [instances[start : start + chunk] for start in range(0, len(instances), chunk)]
        scores = np.concatenate([ops.convert_to_numpy(self.score(ops.convert_to_tensor(piece))) for piece in pieces])
        weights = np.exp(scores.astype(np.float64) - float(scores.max()))
        weights /= weights.sum()
        pooled = np.zeros(instances.shape[-1], np.float64)
        for start, piece in zip(range(0, len(instances), chunk), pieces, strict=True):
            pooled += weights[start : start + chunk] @ piece
        logits = self.classifier(ops.convert_to_tensor(pooled[None].astype(np.float32)))
        return ops.convert_to_numpy(logits)[0], weights.astype(np.float32)
