"""The tile classifier: an encoder and one logit, a Keras model that carries its own preprocessing."""

from __future__ import annotations

import os
from typing import Any

from components.mil import quiet as quiet

import keras  # isort: skip
from keras import layers  # isort: skip

from components.mil import model as bag_model  # registers every Keras class
from components.mil.encoders.registry import create_encoder
from components.records import storage
from components.records.errors import InputError

KIND = "tile_classifier"
PROBABILITY = "probability"


def create_tile_model(encoder: str, tile_px: int, *, dropout: float = 0.0, **options: Any) -> keras.Model:
    """A fresh tile classifier on an encoder by name; `options` go to the encoder.

    Returns:
        Keras model, uint8 tiles [n, h, w, 3] to the probability of a lesion, float32 [n, 1].

    Raises:
        InputError: an unknown name (with the nearest), or an encoder that can't be loaded.
    """
    built = create_encoder(encoder, tile_px, **options)
    tiles = keras.Input((None, None, 3), dtype="uint8", name="tiles")
    x = built(tiles)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(1, dtype="float32", name="logit")(x)
    x = layers.Activation("sigmoid", dtype="float32", name=PROBABILITY)(x)
    return keras.Model(tiles, x, name="tile_model")


def encoder_of(model: keras.Model) -> keras.Model:
    """The encoder inside a tile classifier."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def logits_of(model: keras.Model) -> keras.Model:
    """The same model, weights shared, as far as its logit: what a loss takes."""
    return keras.Model(model.input, model.get_layer("logit").output)


def save_tile_model(model: keras.Model, folder: str, metadata: dict[str, Any]) -> None:
    """Saves as a Keras model folder with `bagline.json` beside the weights; replaces what is there."""
    bag_model.save_model(model, folder, {**metadata, "kind": KIND})


def load_tile_model(folder: str) -> tuple[keras.Model, dict[str, Any]]:
    """What `save_tile_model` wrote, and its `bagline.json`.

    Raises:
        InputError: there is no tile classifier in `folder`, or it was cut short.
    """
    mend = "train one with `bagline run --pipeline tile-classifier`"
    names = ("config.json", "model.weights.h5", bag_model.CARD)
    if not all(os.path.exists(os.path.join(folder, name)) for name in names):
        raise InputError("holds no model", where=folder, mend=mend)
    card = dict(storage.read_json(os.path.join(folder, bag_model.CARD)))
    if card.get("kind") != KIND:
        raise InputError("holds no tile classifier", where=folder, mend=mend)
    try:
        model = keras.models.load_model(folder, compile=False)
    except (ValueError, TypeError, OSError, KeyError, UnboundLocalError) as error:  # the last: Keras on a cut file
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"holds no model that opens ({reason})", where=folder, mend=mend) from None
    return model, card
