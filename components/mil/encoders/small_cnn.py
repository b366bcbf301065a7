"""A small convolutional encoder, trained along with the head."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from components.mil.encoders.preprocessing import ShrinkTiles

WIDTHS = (16, 32, 64, 128)


def build_small_cnn(tile_px: int, input_px: int = 64, embedding_dim: int = 128, **_: Any) -> keras.Model:
    """Strided convolutions, then mean and maximum over the map, then one dense layer.

    No batch normalisation: tiles of one bag are alike, and statistics over a batch of bags differ from those at
    inference. Pixels are scaled to -1…1 inside.

    Args:
        tile_px: side of the tiles it is meant for, px.
        input_px: side they are shrunk to first, px.
        embedding_dim: length of the embedding.

    Returns:
        Keras model, uint8 [n, h, w, 3] to float32 [n, embedding_dim].
    """
    tiles = keras.Input((None, None, 3), dtype="uint8", name="tiles")
    x = ShrinkTiles(min(input_px, tile_px), name="shrink")(tiles)
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(x)
    for number, width in enumerate(WIDTHS, start=1):
        x = layers.Conv2D(
            width,
            3,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"convolution_{number}",
        )(x)
    x = layers.Concatenate(name="pool")([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])
    x = layers.LayerNormalization(dtype="float32", name="normalise")(x)
    x = layers.Dense(embedding_dim, activation="relu", dtype="float32", name="embedding")(x)
    return keras.Model(tiles, x, name="encoder")
