"""Gated attention beside statistics of the bag, read by a linear and a kernel road."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from components.mil.heads.gated_attention import GatedAttention
from components.mil.heads.protocol import CHUNK, Floats, Pieces, mask_scores, softmax_over_instances, stream_softmax
from components.mil.standardise import Standardise

LEAST_VARIANCE = 1e-6
FARTHEST = 4.0  # deviations: a value that hardly varied in training may not decide a bag alone


@keras.saving.register_keras_serializable(package="bagline")
class AttentionStatistics(GatedAttention):
    """What gated attention pools (Ilse et al. 2018, eq. 7 and 9), and each value's maximum, minimum and deviation.

    z = [Σ_k a_k h_k, max_k h_k, min_k h_k, dev_k h_k], brought to mean 0 and deviation 1 once by what fresh weights
    pool of the training bags (`scale`), and cut at 4 deviations. Attention starts out nearly even, so the first part
    starts as the bag's mean.

    logits = W z + U φ(z) + b, φ(z) = √2 cos(Ω z + β) with fixed Ω ~ N(0, 2 / dim z) and β ~ U(0, 2π): random features
    (Rahimi & Recht 2007, algorithm 1) of the kernel exp(-‖z - z'‖² / dim z). Few bags with many values are told apart
    by the linear road on some sets and by the kernel on others; the sum serves both. No paper's head.

    Args:
        classes: number of classes.
        random_features: length of φ.
        options: of `GatedAttention`.
    """

    pooled_parts = 4

    def __init__(self, classes: int, random_features: int = 1024, **options: Any) -> None:
        super().__init__(classes, **options)
        self.random_features = random_features
        self.weight.kernel_initializer = keras.initializers.RandomNormal(stddev=1e-3)
        self.scale = Standardise(dtype="float32", name="scale")
        self.kernel_classifier = keras.layers.Dense(classes, use_bias=False, dtype="float32", name="kernel_classifier")
        self.kernel_drop = keras.layers.Dropout(self.dropout, name="kernel_drop", seed=1)

    def build(self, input_shape: Any) -> None:
        """Makes V, U, w, the scale, Ω, β and the classifiers."""
        super().build(input_shape)
        pooled = self.pooled_parts * input_shape[-1]
        self.scale.build((None, pooled))
        normal = keras.initializers.RandomNormal(stddev=(2 / pooled) ** 0.5)
        turn = keras.initializers.RandomUniform(0.0, 2 * np.pi)
        self.frequencies = self.add_weight(
            shape=(pooled, self.random_features),
            initializer=normal,
            trainable=False,
            autocast=False,
            name="frequencies",
        )
        self.phases = self.add_weight(
            shape=(self.random_features,), initializer=turn, trainable=False, autocast=False, name="phases"
        )
        self.kernel_classifier.build((None, self.random_features))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "random_features": self.random_features}

    def pool(self, instances: Any, mask: Any) -> tuple[Any, Any]:
        """Z [b, 4 d] and attention [b, n] of padded bags."""
        attention = softmax_over_instances(self.score(instances), mask)
        values = ops.cast(instances, "float32")
        there = ops.expand_dims(ops.cast(mask, "float32"), -1)
        count = ops.maximum(ops.sum(there, axis=1), 1.0)
        pooled = ops.einsum("bn,bnd->bd", attention, values)
        strongest = ops.max(mask_scores(values, mask), axis=1)
        weakest = -ops.max(mask_scores(-values, mask), axis=1)
        values = ops.where(there > 0, values, 0.0)
        mean = ops.sum(values, axis=1, keepdims=True) / ops.expand_dims(count, 1)
        variance = ops.sum(ops.square(values - mean) * there, axis=1) / count
        return ops.concatenate([pooled, strongest, weakest, ops.sqrt(variance + LEAST_VARIANCE)], axis=-1), attention

    def classify(self, pooled: Any, training: bool | None = None) -> Any:
        """Logits [b, classes] of z [b, 4 d]."""
        z = ops.clip(self.scale(pooled), -FARTHEST, FARTHEST)
        kernel = ops.sqrt(2.0) * ops.cos(ops.matmul(z, self.frequencies) + self.phases)
        linear = ops.cast(self.classifier(self.drop(z, training=training)), "float32")
        return linear + self.kernel_classifier(self.kernel_drop(kernel, training=training))

    def call(self, instances: Any, mask: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits and attention of padded bags."""
        pooled, attention = self.pool(instances, mask)
        return {"logits": self.classify(pooled, training=training), "attention": attention}

    def stream(self, instances: Floats, chunk: int = CHUNK) -> tuple[Floats, Floats]:
        """Three passes over one bag: scores and their softmax, the weighted sum and the mean, the rest."""
        pieces = Pieces(instances, chunk)
        weights, pooled = stream_softmax(pieces.apply(self.score), pieces)
        mean = np.sum([piece.sum(axis=0, dtype=np.float64) for piece in pieces], axis=0) / len(instances)
        strongest, weakest, squares = np.full(mean.shape, -np.inf), np.full(mean.shape, np.inf), np.zeros(mean.shape)
        for piece in pieces:
            strongest = np.maximum(strongest, piece.max(axis=0))
            weakest = np.minimum(weakest, piece.min(axis=0))
            squares += np.square(piece - mean).sum(axis=0)
        deviation = np.sqrt(squares / len(instances) + LEAST_VARIANCE)
        z = np.concatenate([pooled, strongest, weakest, deviation])[None].astype(np.float32)
        return ops.convert_to_numpy(self.classify(ops.convert_to_tensor(z)))[0], weights
