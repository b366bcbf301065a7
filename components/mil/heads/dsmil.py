"""DSMIL: the strongest instance of each class, and attention by likeness to it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from components.mil.heads.protocol import (
    CHUNK,
    BagHead,
    Floats,
    Pieces,
    cross_entropy,
    mask_scores,
    softmax_of_branches,
    stream_softmax,
    take_predicted,
)


@keras.saving.register_keras_serializable(package="bagline")
class DSMIL(BagHead):
    """Dual-stream MIL (Li et al. 2021, Dual-stream Multiple Instance Learning Network for Whole Slide Image
    Classification, section 3.2).

    The first stream is max pooling of instance logits, c_m = max_k W_0 h_k; the instance that holds a class's maximum
    is its critical instance h_m. The second attends to every instance by its likeness to the critical one,
    U_k = softmax_k(<q_k, q_m> / √d_q), pools z = Σ_k U_k h_k for each class, and c_b = W_b z over all classes' z. The
    logits are ½ (c_m + c_b), and training adds half the loss of either stream. As in the authors' code: q is two
    dense layers (ReLU, tanh), the product is divided by √d_q, values are the instances themselves, and ties go to the
    first instance. The losses are cross-entropies over classes; the authors' are per class.

    Attention is that of the likeliest class; `class_attention` [b, n, classes] has all, `max_logits` and `bag_logits`
    are the two streams'.

    Args:
        classes: number of classes.
        attention_dim: length d_q of a query.
        dropout: share of the pooled values dropped in training.
    """

    def __init__(self, classes: int, attention_dim: int = 64, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(classes, **options)
        self.attention_dim = attention_dim
        self.dropout = dropout
        self.instance_classifier = keras.layers.Dense(classes, dtype="float32", name="instance_classifier")
        self.hidden = keras.layers.Dense(attention_dim, activation="relu", name="hidden")
        self.query = keras.layers.Dense(attention_dim, activation="tanh", name="query")
        self.drop = keras.layers.Dropout(dropout, name="drop", seed=0)
        self.classifier = keras.layers.Dense(classes, dtype="float32", name="classifier")

    def build(self, input_shape: Any) -> None:
        """Makes the weights for instances of `input_shape` [b, n, d]."""
        width = input_shape[-1]
        self.instance_classifier.build((None, width))
        self.hidden.build((None, width))
        self.query.build((None, self.attention_dim))
        self.classifier.build((None, self.classes * width))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "attention_dim": self.attention_dim, "dropout": self.dropout}

    def call(self, instances: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits and attention of padded bags, and what the two streams say."""
        scores = mask_scores(self.instance_classifier(instances), mask)
        strongest = ops.max(scores, axis=1)
        critical = ops.take_along_axis(instances, ops.expand_dims(ops.argmax(scores, axis=1), -1), axis=1)
        queries, wanted = self.query(self.hidden(instances)), self.query(self.hidden(critical))
        likeness = ops.einsum("bnq,bcq->bnc", queries, wanted) / self.attention_dim**0.5
        attention = softmax_of_branches(likeness, mask)
        pooled = ops.einsum("bnc,bnd->bcd", attention, ops.cast(instances, "float32"))
        flat = ops.reshape(pooled, (-1, self.classes * instances.shape[-1]))
        bag = self.classifier(self.drop(flat, training=training))
        logits = (strongest + bag) / 2
        return {
            "logits": logits,
            "attention": take_predicted(attention, logits),
            "class_attention": attention,
            "max_logits": strongest,
            "bag_logits": bag,
        }

    def losses(self, outputs: dict[str, Any], labels: Any) -> Any:
        """Half the cross-entropy of either stream, float32 [b]."""
        return (cross_entropy(outputs["max_logits"], labels) + cross_entropy(outputs["bag_logits"], labels)) / 2

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """Three passes over one bag: the critical instances, likeness to them, and the weighted sums."""
        pieces = Pieces(instances, chunk)
        scores = pieces.apply(self.instance_classifier)
        critical = np.asarray(instances[scores.argmax(axis=0)], np.float32)
        wanted = self.query(self.hidden(ops.convert_to_tensor(critical)))
        likeness = pieces.apply(lambda piece: ops.matmul(self.query(self.hidden(piece)), ops.transpose(wanted)))
        weights, pooled = stream_softmax(likeness / self.attention_dim**0.5, pieces)
        bag = self.classifier(ops.convert_to_tensor(pooled.reshape(1, -1).astype(np.float32)))
        logits = (scores.max(axis=0) + ops.convert_to_numpy(bag)[0]) / 2
        return logits, weights[:, int(logits.argmax())]
