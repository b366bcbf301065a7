"""What every head offers, and the attention pooling that most of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

Floats = NDArray[np.float32]
CHUNK = 2048
LEAST = -1e30


def softmax_over_instances(scores: Any, mask: Any) -> Any:
    """Softmax over the unmasked instances of each bag.

    Args:
        scores: [b, n], any float dtype.
        mask: bool [b, n], True where there is an instance.

    Returns:
        float32 [b, n]: sums to 1 over the unmasked instances, 0 on the others; all 0 for a bag without any.
    """
    scores = ops.cast(scores, "float32")
    scores = ops.where(mask, scores, ops.full_like(scores, LEAST))
    weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True)) * ops.cast(mask, "float32")
    return weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-12)


def mask_scores(scores: Any, mask: Any) -> Any:
    """Scores [b, n, k] as float32, with -1e30 where `mask` [b, n] is False."""
    scores = ops.cast(scores, "float32")
    return ops.where(ops.expand_dims(mask, -1), scores, ops.full_like(scores, LEAST))


def softmax_of_branches(scores: Any, mask: Any) -> Any:
    """`softmax_over_instances` for each of k branches: [b, n, k] of scores [b, n, k] and a mask [b, n]."""
    weights = softmax_over_instances(ops.transpose(scores, (0, 2, 1)), ops.expand_dims(mask, 1))
    return ops.transpose(weights, (0, 2, 1))


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Cross-entropy of each bag, float32 [b], of logits [b, classes] and labels int [b]."""
    return ops.sparse_categorical_crossentropy(labels, ops.cast(logits, "float32"), from_logits=True)


def take_predicted(values: Any, logits: Any) -> Any:
    """Of values [b, n, classes] those of each bag's likeliest class, [b, n]."""
    chosen = ops.one_hot(ops.argmax(logits, axis=-1), values.shape[-1], dtype=values.dtype)
    return ops.einsum("bnc,bc->bn", values, chosen)


class BagHead(keras.layers.Layer):
    """A MIL head: `head(instances [b, n, d], mask bool [b, n])` gives a dict.

    `logits` float32 [b, classes]; `attention` float32 [b, n], which sums to 1 over the unmasked instances and is 0
    elsewhere; and what else the head's own loss needs. What it is trained with is `losses`.
    """

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.classes = classes

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "classes": self.classes}

    def losses(self, outputs: dict[str, Any], labels: Any) -> Any:
        """What each bag is trained on, float32 [b]: cross-entropy, unless the head's paper says more.

        Args:
            outputs: of `call`.
            labels: int [b].
        """
        return cross_entropy(outputs["logits"], labels)

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """One bag of any size: logits [classes] and attention [n] of instances [n, d].

        A head whose pooling can be done piece by piece overrides this; here the bag goes through in one.
        """
        out = self(ops.convert_to_tensor(instances[None]), ops.ones((1, len(instances)), "bool"), training=False)
        return ops.convert_to_numpy(out["logits"])[0], ops.convert_to_numpy(out["attention"])[0]


class Pieces:
    """One bag in pieces of `chunk` instances, each brought to float32 only while it is looked at.

    Args:
        instances: float16 or float32 [n, d].
        chunk: instances a piece.
    """

    def __init__(self, instances: NDArray[Any], chunk: int = CHUNK) -> None:
        self.instances = instances
        self.chunk = chunk

    def __iter__(self) -> Iterator[Floats]:
        for start in range(0, len(self.instances), self.chunk):
            yield np.asarray(self.instances[start : start + self.chunk], np.float32)

    def apply(self, function: Callable[[Any], Any]) -> Floats:
        """`function` of each piece as a tensor [m, d], joined along the instances."""
        return np.concatenate([ops.convert_to_numpy(function(ops.convert_to_tensor(piece))) for piece in self])


def stream_softmax(scores: NDArray[np.floating[Any]], pieces: Pieces) -> tuple[Floats, NDArray[np.float64]]:
    """Softmax over the instances of one bag, and what it pools; float64 in between.

    Args:
        scores: [n] or [n, k].
        pieces: the n instances.

    Returns:
        float32 [n] or [n, k], and float64 [d] or [k, d].
    """
    weights = np.exp(scores.astype(np.float64) - scores.max(axis=0))
    weights /= weights.sum(axis=0)
    pooled, at = np.zeros((*scores.shape[1:], pieces.instances.shape[-1])), 0
    for piece in pieces:
        pooled += weights[at : at + len(piece)].T @ piece
        at += len(piece)
    return weights.astype(np.float32), pooled


class PoolingHead(BagHead):
    """Logits of the attention-weighted mean of the instances: a subclass only says how an instance scores.

    z = Σ_k a_k h_k with a = softmax(score(h)) (Ilse et al. 2018, eq. 7), then one dense layer.

    Args:
        classes: number of classes.
        dropout: share of z's values dropped in training.
    """

    pooled_parts = 1  # z is this many times as long as an instance

    def __init__(self, classes: int, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(classes, **options)
        self.dropout = dropout
        self.drop = keras.layers.Dropout(dropout, name="drop", seed=0)
        self.classifier = keras.layers.Dense(classes, dtype="float32", name="classifier")

    def build(self, input_shape: Any) -> None:
        """Makes the weights for instances of `input_shape` [b, n, d]."""
        self.classifier.build((None, self.pooled_parts * input_shape[-1]))
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
        """Two passes over one bag: scores and their softmax, then the weighted sum."""
        pieces = Pieces(instances, chunk)
        weights, pooled = stream_softmax(pieces.apply(self.score), pieces)
        logits = self.classifier(ops.convert_to_tensor(pooled[None].astype(np.float32)))
        return ops.convert_to_numpy(logits)[0], weights
