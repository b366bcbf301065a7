"""A dense encoder of embeddings that were made before."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from components.mil.standardise import Standardise


@keras.saving.register_keras_serializable(package="bagline")
class Asinh(layers.Layer):
    """Inverse hyperbolic sine of each value: linear about 0, logarithmic far out."""

    def call(self, values: Any) -> Any:
        """Asinh of values [n, d]."""
        return ops.arcsinh(values)


def build_dense(
    values: int,
    embedding_dim: int = 128,
    dense_layers: int = 1,
    instance_dropout: float = 0.0,
    squash: bool = False,
    **_: Any,
) -> keras.Model:
    """Standardised values, then dense layers with ReLU.

    Args:
        values: length of an embedding.
        embedding_dim: length of what comes out.
        dense_layers: how many; with 0 the standardised values come out.
        instance_dropout: share of each layer's output dropped in training.
        squash: take asinh of the standardised values, which tames long tails and leaves the middle as it is.

    Returns:
        Keras model, float16 or float32 [n, values] to float32 [n, embedding_dim], or [n, values] without a layer.
    """
    given = keras.Input((values,), name="embeddings")
    x = Standardise(name="standardise")(given)
    if squash:
        x = Asinh(name="squash")(x)
    for number in range(1, dense_layers + 1):
        x = layers.Dense(embedding_dim, activation="relu", kernel_initializer="he_normal", name=f"dense_{number}")(x)
        if instance_dropout:
            x = layers.Dropout(instance_dropout, seed=number, name=f"drop_{number}")(x)
    x = layers.Activation("linear", dtype="float32", name="embedding")(x)
    return keras.Model(given, x, name="encoder")
