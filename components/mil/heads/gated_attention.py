"""Gated attention pooling."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from components.mil.heads.protocol import PoolingHead


@keras.saving.register_keras_serializable(package="bagline")
class GatedAttention(PoolingHead):
    """Gated attention (Ilse et al. 2018, Attention-based Deep Multiple Instance Learning, eq. 9).

    a_k = softmax_k(wᵀ(tanh(V h_k) ⊙ sigm(U h_k))); V and U carry a bias, as in the authors' code.

    Args:
        classes: number of classes.
        attention_dim: rows of V and U.
        options: of `PoolingHead`.
    """

    def __init__(self, classes: int, attention_dim: int = 64, **options: Any) -> None:
        super().__init__(classes, **options)
        self.attention_dim = attention_dim
        self.content = keras.layers.Dense(attention_dim, activation="tanh", name="content")
        self.gate = keras.layers.Dense(attention_dim, activation="sigmoid", name="gate")
        self.weight = keras.layers.Dense(1, use_bias=False, name="weight")

    def build(self, input_shape: Any) -> None:
        """Makes V, U, w and the classifier."""
        self.content.build((None, input_shape[-1]))
        self.gate.build((None, input_shape[-1]))
        self.weight.build((None, self.attention_dim))
        super().build(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "attention_dim": self.attention_dim}

    def score(self, instances: Any) -> Any:
        """wᵀ(tanh(V h) ⊙ sigm(U h)): [..., n] of instances [..., n, d]."""
        return ops.squeeze(self.weight(self.content(instances) * self.gate(instances)), -1)
