"""A dense encoder of embeddings that were made before."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray


@keras.saving.register_keras_serializable(package="bagline")
class Standardise(layers.Layer):
    """(x - mean) / deviation for each value, [n, d] to float32 [n, d]; what `adapt` has not seen stays as it is."""

    def build(self, input_shape: Any) -> None:
        """Makes mean and deviation, which training leaves alone."""
        for name, start in (("mean", "zeros"), ("deviation", "ones")):
            weight = self.add_weight(
                shape=(input_shape[-1],), initializer=start, trainable=False, name=name, dtype="float32"
            )
            setattr(self, name, weight)
        self.built = True

    def call(self, values: Any) -> Any:
        """The standardised values."""
        return (ops.cast(values, "float32") - self.mean) / self.deviation

    def adapt(self, values: NDArray[Any]) -> None:
        """Takes mean and deviation from values [n, d]."""
        for weight, found in zip((self.mean, self.deviation), measure_scale(values), strict=True):
            weight.assign(found)


def measure_scale(values: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation [d] of values [n, d]; 1 for a value that does not vary."""
    mean, deviation = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)


def build_dense(
    values: int, embedding_dim: int = 128, dense_layers: int = 1, instance_dropout: float = 0.0, **_: Any
) -> keras.Model:
    """Standardised values, then dense layers with ReLU.

    Args:
        values: length of an embedding.
        embedding_dim: length of what comes out.
        dense_layers: how many.
        instance_dropout: share of each layer's output dropped in training.

    Returns:
        Keras model, float16 or float32 [n, values] to float32 [n, embedding_dim].
    """
    given = keras.Input((values,), name="embeddings")
    x = Standardise(name="standardise")(given)
    for number in range(1, dense_layers + 1):
        x = layers.Dense(embedding_dim, activation="relu", kernel_initializer="he_normal", name=f"dense_{number}")(x)
        if instance_dropout:
            x = layers.Dropout(instance_dropout, seed=number, name=f"drop_{number}")(x)
    x = layers.Activation("linear", dtype="float32", name="embedding")(x)
    return keras.Model(given, x, name="encoder")
