"""Attention pooling."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from components.mil.heads.protocol import PoolingHead


@keras.saving.register_keras_serializable(package="bagline")
class Attention(PoolingHead):
    """Attention (Ilse et al. 2018, eq. 8): a_k = softmax_k(wᵀ tanh(V h_k)); V carries a bias, as in the authors' code.

    Args:
        classes: number of classes.
        attention_dim: rows of V.
        options: of `PoolingHead`.
    """

    def __init__(self, classes: int, attention_dim: int = 64, **options: Any) -> None:
        super().__init__(classes, **options)
        self.attention_dim = attention_dim
        self.content = keras.layers.Dense(attention_dim, activation="tanh", name="content")
        self.weight = keras.layers.Dense(1, use_bias=False, name="weight")

    def build(self, input_shape: Any) -> None:
        """Makes V, w and the classifier."""
        self.content.build((None, input_shape[-1]))
        self.weight.build((None, self.attention_dim))
        super().build(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "attention_dim": self.attention_dim}

    def score(self, instances: Any) -> Any:
        """wᵀ tanh(V h): [..., n] of instances [..., n, d]."""
        return ops.squeeze(self.weight(self.content(instances)), -1)
