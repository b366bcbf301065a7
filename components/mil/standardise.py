"""Values brought to mean 0 and deviation 1 by what training saw of them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@keras.saving.register_keras_serializable(package="bagline")
class Standardise(keras.layers.Layer):
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
