"""What CLAM with one branch and CLAM with a branch a class share: pooling, and the clustering of instances."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from components.mil.heads.protocol import (
    CHUNK,
    LEAST,
    BagHead,
    Floats,
    Pieces,
    cross_entropy,
    mask_scores,
    softmax_of_branches,
    stream_softmax,
    take_predicted,
)


class ClamHead(BagHead):
    """Clustering-constrained attention MIL (Lu et al. 2021, Data-efficient and weakly supervised computational
    pathology on whole-slide images).

    Gated attention per branch m, a_k,m = softmax_k(w_mᵀ(tanh(V h_k) ⊙ sigm(U h_k))) (eq. 1), pools to
    z_m = Σ_k a_k,m h_k (eq. 2), and s_m = w_c,mᵀ z_m + b_m is the class's logit. The first dense layer of the paper's
    network, which makes h_k of a feature vector, is the encoder's.

    In training (Methods, "Instance-level clustering") the `clustered` most and the `clustered` least attended
    instances of the bag's class are pseudo-labelled 1 and 0 for that class's instance classifier; with `subtyping`
    the most attended of every other class, which can't be there too, are labelled 0 for theirs. They are scored by the
    smooth top-1 SVM loss (Berrada et al. 2018, eq. 7) with margin and temperature 1, which for two classes is
    softplus(1 + s_other - s_true). A bag of fewer than 2 × `clustered` instances gives half its instances to either
    side; one of a single instance has no clustering loss. The loss is
    `bag_weight` × cross-entropy + (1 - `bag_weight`) × clustering.

    Besides logits and attention (that of the likeliest class) a call gives `scores` [b, n, branches], unnormalised,
    and `instance_logits` [b, n, classes, 2].

    Args:
        classes: number of classes.
        attention_dim: rows of V and U.
        dropout: share of the gated values dropped in training.
        clustered: instances on either side, the paper's B.
        bag_weight: share of the bag's loss, the paper's c_1.
        subtyping: whether the classes exclude each other within a bag.
    """

    def __init__(
        self,
        classes: int,
        attention_dim: int = 64,
        dropout: float = 0.0,
        clustered: int = 8,
        bag_weight: float = 0.7,
        subtyping: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(classes, **options)
        self.attention_dim = attention_dim
        self.dropout = dropout
        self.clustered = clustered
        self.bag_weight = bag_weight
        self.subtyping = subtyping
        self.content = keras.layers.Dense(attention_dim, activation="tanh", name="content")
        self.gate = keras.layers.Dense(attention_dim, activation="sigmoid", name="gate")
        self.drop = keras.layers.Dropout(dropout, name="drop", seed=0)
        self.weight = keras.layers.Dense(self.branches, use_bias=False, name="weight")
        self.instance_classifier = keras.layers.Dense(2 * classes, dtype="float32", name="instance_classifier")

    @property
    def branches(self) -> int:
        """Attention branches."""
        raise NotImplementedError

    def build(self, input_shape: Any) -> None:
        """Makes the weights for instances of `input_shape` [b, n, d]."""
        width = input_shape[-1]
        self.content.build((None, width))
        self.gate.build((None, width))
        self.weight.build((None, self.attention_dim))
        self.instance_classifier.build((None, width))
        initial = keras.initializers.GlorotUniform()
        self.kernel = self.add_weight(shape=(self.classes, width), initializer=initial, name="kernel", dtype="float32")
        self.bias = self.add_weight(shape=(self.classes,), initializer="zeros", name="bias", dtype="float32")
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("attention_dim", "dropout", "clustered", "bag_weight", "subtyping")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def score(self, instances: Any, training: bool | None = None) -> Any:
        """Unnormalised attention of each branch: [..., n, branches] of instances [..., n, d]."""
        return self.weight(self.drop(self.content(instances) * self.gate(instances), training=training))

    def call(self, instances: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits and attention of padded bags, and what the clustering loss needs."""
        scores = self.score(instances, training)
        attention = softmax_of_branches(scores, mask)
        pooled = ops.einsum("bnk,bnd->bkd", attention, ops.cast(instances, "float32"))
        logits = ops.sum(pooled * ops.cast(self.kernel, "float32"), axis=-1) + ops.cast(self.bias, "float32")
        shown = attention[..., 0] if self.branches == 1 else take_predicted(attention, logits)
        found = self.instance_classifier(instances)
        return {
            "logits": logits,
            "attention": shown,
            "scores": mask_scores(scores, mask),
            "instance_logits": ops.reshape(found, (*ops.shape(found)[:2], self.classes, 2)),
        }

    def losses(self, outputs: dict[str, Any], labels: Any) -> Any:
        """The bag's cross-entropy and the clustering of its instances, float32 [b]."""
        bag = cross_entropy(outputs["logits"], labels)
        clustering = 0.0
        for index in range(self.classes):
            scores = outputs["scores"][..., min(index, self.branches - 1)]
            found = outputs["instance_logits"][:, :, index]
            held = ops.cast(ops.equal(labels, index), "float32")
            most, least = self._cluster(scores, found, 1), self._cluster(-scores, found, 0)
            clustering += held * (most + least) / 2
            if self.subtyping:
                clustering += (1 - held) * self._cluster(scores, found, 0)
        if self.subtyping:
            clustering /= self.classes
        return self.bag_weight * bag + (1 - self.bag_weight) * clustering

    def _cluster(self, scores: Any, found: Any, truth: int) -> Any:
        """Mean loss [b] of the highest of scores [b, n], whose instance logits [b, n, 2] should say `truth`."""
        there = ops.abs(scores) < -LEAST / 2
        size = min(self.clustered, scores.shape[1] or self.clustered)
        where = ops.top_k(ops.where(there, scores, ops.full_like(scores, LEAST)), size)[1]
        chosen = ops.take_along_axis(found, ops.expand_dims(where, -1), axis=1)
        losses = ops.softplus(1 + chosen[..., 1 - truth] - chosen[..., truth])
        half = ops.sum(ops.cast(there, "int32"), axis=1, keepdims=True) // 2
        counted = ops.cast(ops.expand_dims(ops.arange(size), 0) < half, "float32")
        return ops.sum(losses * counted, axis=1) / ops.maximum(ops.sum(counted, axis=1), 1.0)

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """Two passes over one bag: scores and their softmax, then the weighted sums."""
        pieces = Pieces(instances, chunk)
        weights, pooled = stream_softmax(pieces.apply(self.score), pieces)
        kernel, bias = (ops.convert_to_numpy(value) for value in (self.kernel, self.bias))
        logits = ((pooled * kernel).sum(axis=-1) + bias).astype(np.float32)
        return logits, weights[:, 0 if self.branches == 1 else int(logits.argmax())]
