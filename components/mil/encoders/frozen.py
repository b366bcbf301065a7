"""A frozen encoder and what is trained after it: one model for tiles, or the second half alone for embeddings."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np

from components.mil.encoders.saved_model import SavedModelEncoder

FROZEN, PROJECTION = "frozen", "projection"


def join_projection(frozen: keras.Model, projection: keras.Model) -> keras.Model:
    """Tiles through `frozen`, always in inference mode, then through `projection`, both as they are.

    Args:
        frozen: uint8 [n, h, w, 3] to float32 [n, d].
        projection: float32 [n, d] to float32 [n, k].
    """
    frozen.name, projection.name = FROZEN, PROJECTION
    frozen.trainable = False
    tiles = keras.Input((None, None, 3), dtype="uint8", name="tiles")
    return keras.Model(tiles, projection(frozen(tiles, training=False)), name="encoder")


def split_projection(encoder: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """The two models of `join_projection`; None for another encoder."""
    found = {layer.name: layer for layer in encoder.layers}
    if FROZEN in found and PROJECTION in found:
        return found[FROZEN], found[PROJECTION]
    return None


def digest_encoder(encoder: keras.Model) -> str:
    """`sha256:<hex>` over the encoder's weights, and the files of a SavedModel in it."""
    digest = hashlib.sha256()
    for weight in encoder.get_weights():
        values = np.ascontiguousarray(weight)
        digest.update(f"{values.dtype.str}{values.shape}\0".encode())
        digest.update(values.tobytes())
    for layer in encoder.layers:
        if isinstance(layer, SavedModelEncoder):
            digest.update(layer.digest.encode())
    return f"sha256:{digest.hexdigest()}"


def describe_side(encoder: keras.Model) -> Any:
    """The layer that shrinks the tiles, wherever it lies."""
    parts = split_projection(encoder)
    return (parts[0] if parts else encoder).get_layer("shrink")
