"""Any saved Keras model as the encoder."""

from __future__ import annotations

import os
from typing import Any

import keras
from keras import layers

from components.mil.encoders.preprocessing import ShrinkTiles
from components.mil.stain import add_normalisation
from components.records.errors import InputError


def build_saved(
    tile_px: int, encoder_path: str = "", freeze_encoder: bool = True, input_px: int = 64, **options: Any
) -> keras.Model:
    """A saved Keras model (`.keras` file or folder) that takes RGB pictures of values 0–255.

    Tiles are shrunk to the side it was saved with, or to `input_px` where that is open. A feature map as output is
    averaged over its area.

    Args:
        tile_px: side of the tiles, px.
        encoder_path: the saved model.
        freeze_encoder: keep its weights as they are; also keeps its layers in inference mode.
        input_px: side for a model whose input side is open, px.
        options: `stain_normalisation` and `stain_reference`, as `add_normalisation` takes them.

    Returns:
        Keras model, uint8 [n, h, w, 3] to float32 [n, d].

    Raises:
        InputError: nothing is there, it isn't a Keras model, or it doesn't map pictures to vectors.
    """
    mend = "give encoder_path a saved Keras model: a .keras file or a folder"
    if not encoder_path:
        raise InputError("the encoder 'saved' needs encoder_path", mend=mend)
    if not os.path.exists(encoder_path):
        raise InputError("no such file", where=encoder_path, mend=mend)
    try:
        inner = keras.models.load_model(encoder_path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"is no Keras model that opens here ({reason})", where=encoder_path, mend=mend) from None
    shape = getattr(inner, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3 or shape[1] != shape[2]:
        raise InputError(f"takes {shape}, not square RGB pictures [n, h, w, 3]", where=encoder_path, mend=mend)
    inner.trainable = not freeze_encoder
    tiles = keras.Input((None, None, 3), dtype="uint8", name="tiles")
    x = ShrinkTiles(shape[1] or input_px, name="shrink")(tiles)
    x = add_normalisation(x, options.get("stain_normalisation", "none"), options.get("stain_reference"))
    x = inner(x, training=False) if freeze_encoder else inner(x)
    if not hasattr(x, "shape") or len(x.shape) not in (2, 4) or x.shape[-1] is None:
        raise InputError("does not give one vector a picture", where=encoder_path, mend=mend)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Activation("linear", dtype="float32", name="embedding")(x)
    return keras.Model(tiles, x, name="encoder")
