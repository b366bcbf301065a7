"""Any saved Keras model or SavedModel as the encoder."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from components.mil.encoders.fetch import fetch_model
from components.mil.encoders.preprocessing import ShrinkTiles
from components.mil.encoders.saved_model import encode_with, is_saved_model
from components.mil.stain import add_normalisation
from components.records.errors import InputError

SIDE = 224
_MEND = "give encoder_path a saved Keras model (a .keras file or a folder) or the folder of a SavedModel"


def build_saved(
    tile_px: int, encoder_path: str = "", freeze_encoder: bool = True, input_px: int = 0, **options: Any
) -> keras.Model:
    """A saved model: Keras, which takes RGB pictures of values 0–255, or a SavedModel, which takes 0–1.

    Tiles are brought to the side it was saved with, or to `input_px` where that is open. A feature map as output is
    averaged over its area. Keras opens it in its safe mode: a model with code of its own is refused.

    Args:
        tile_px: side of the tiles, px.
        encoder_path: the saved model, on disk or in a bucket (`gs://`, fetched to this machine's disk once).
        freeze_encoder: keep its weights as they are; also keeps its layers in inference mode. A SavedModel's are.
        input_px: side for a model whose input side is open, px; 0 for 224.
        options: `stain_normalisation` and `stain_reference`, as `add_normalisation` takes them.

    Returns:
        Keras model, uint8 [n, h, w, 3] to float32 [n, d].

    Raises:
        InputError: nothing is there, it isn't such a model, or it doesn't map pictures to vectors.
    """
    if not encoder_path:
        raise InputError("the encoder 'saved' needs encoder_path", mend=_MEND)
    path = fetch_model(encoder_path, _MEND)
    if is_saved_model(path):
        if not freeze_encoder:
            raise InputError("a SavedModel can't be trained on", where=encoder_path, mend="leave freeze_encoder true")
        try:
            inner, side = encode_with(path)
        except InputError as error:
            raise InputError(error.what, where=encoder_path, mend=error.mend) from None
    else:
        inner, side = _open_keras(path, encoder_path)
        inner.trainable = not freeze_encoder
    tiles = keras.Input((None, None, 3), dtype="uint8", name="tiles")
    x = ShrinkTiles(side or input_px or SIDE, name="shrink")(tiles)
    x = add_normalisation(x, options.get("stain_normalisation", "none"), options.get("stain_reference"))
    x = inner(x, training=False) if freeze_encoder else inner(x)
    if not hasattr(x, "shape") or len(x.shape) not in (2, 4) or x.shape[-1] is None:
        raise InputError("does not give one vector a picture", where=encoder_path, mend=_MEND)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Activation("linear", dtype="float32", name="embedding")(x)
    return keras.Model(tiles, x, name="encoder")


def _open_keras(path: str, where: str) -> tuple[keras.Model, int | None]:
    try:
        inner = keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"is no Keras model that opens here ({reason})", where=where, mend=_MEND) from None
    shape = getattr(inner, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3 or shape[1] != shape[2]:
        raise InputError(f"takes {shape}, not square RGB pictures [n, h, w, 3]", where=where, mend=_MEND)
    return inner, shape[1]
