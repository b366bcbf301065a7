"""A small convolutional encoder, trained along with the head."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from components.mil.encoders.preprocessing import ShrinkTiles
from components.mil.stain import add_normalisation

SIDE = 64
WIDTHS = (16, 32, 64, 128)


def build_small_cnn(tile_px: int, input_px: int = 0, embedding_dim: int = 128, **options: Any) -> keras.Model:
    """Strided convolutions, then mean and maximum over the map, then one dense layer.

    No batch normalisation: tiles of one bag are alike, and statistics over a batch of bags differ from those at
    inference. `scale_to_data` gives its layers their scale instead, once. Pixels are scaled to -1…1 inside.

    Args:
        tile_px: side of the tiles it is meant for, px.
        input_px: side they are shrunk to first, px; 0 for 64.
        embedding_dim: length of the embedding.
        options: `stain_normalisation` and `stain_reference`, as `add_normalisation` takes them.

    Returns:
        Keras model, uint8 [n, h, w, 3] to float32 [n, embedding_dim].
    """
    tiles = keras.Input((None, None, 3), dtype="uint8", name="tiles")
    x = ShrinkTiles(min(input_px or SIDE, tile_px), name="shrink")(tiles)
    x = add_normalisation(x, options.get("stain_normalisation", "none"), options.get("stain_reference"))
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(x)
    for number, width in enumerate(WIDTHS, start=1):
        x = layers.Conv2D(
            width,
            3,
            strides=2,
            padding="same",
            kernel_initializer="he_normal",
            name=f"convolution_{number}",
        )(x)
        x = layers.ReLU(name=f"rectify_{number}")(x)
    mean, maximum = layers.GlobalAveragePooling2D(name="mean")(x), layers.GlobalMaxPooling2D(name="maximum")(x)
    x = layers.Concatenate(name="pool")([mean, maximum])
    x = layers.Dense(embedding_dim, dtype="float32", name="embedding")(x)
    x = layers.ReLU(dtype="float32", name="rectify")(x)
    return keras.Model(tiles, x, name="encoder")


def scale_to_data(encoder: keras.Model, tiles: NDArray[np.uint8]) -> None:
    """Sets each layer's weights and bias so that its channels have mean 0 and variance 1 over `tiles`.

    Data-dependent initialisation (Salimans & Kingma 2016, Weight Normalization, eq. 5–6). Without it the channels of
    a fresh network say what all tissue has in common, and a few dozen bags don't teach it otherwise.

    Args:
        encoder: of `build_small_cnn`, fresh.
        tiles: uint8 [n, h, w, 3], a few hundred from all over the training bags.
    """
    for layer in encoder.layers:
        if not isinstance(layer, layers.Conv2D | layers.Dense):
            continue
        values = np.asarray(keras.Model(encoder.input, layer.output)(tiles), np.float64)
        axes = tuple(range(values.ndim - 1))
        mean, deviation = values.mean(axes), np.maximum(values.std(axes), 1e-6)
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel / deviation, (bias - mean) / deviation])
