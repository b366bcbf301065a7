"""Mean pooling."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from components.mil.heads.protocol import PoolingHead


@keras.saving.register_keras_serializable(package="bagline")
class MeanPooling(PoolingHead):
    """The mean of the instances (Ilse et al. 2018, eq. 6): attention that is the same everywhere."""

    def score(self, instances: Any) -> Any:
        """0 for every instance: [..., n] of instances [..., n, d]."""
        return ops.zeros_like(instances[..., 0])
