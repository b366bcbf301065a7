"""Every encoder by name: a new encoder is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from components.mil.encoders.saved import build_saved
from components.mil.encoders.small_cnn import build_small_cnn
from components.mil.naming import check_name

ENCODERS: dict[str, Callable[..., keras.Model]] = {
    "small_cnn": build_small_cnn,
    "saved": build_saved,
}


def create_encoder(name: str, tile_px: int, **options: Any) -> keras.Model:
    """The encoder `name` for tiles of `tile_px`; of `options` it takes what it knows.

    Raises:
        InputError: there is no such encoder; suggests the nearest.
    """
    check_name("encoder", name, ENCODERS)
    return ENCODERS[name](tile_px, **options)


def input_side(encoder: keras.Model) -> int:
    """The side in px that the encoder shrinks its tiles to."""
    return int(encoder.get_layer("shrink").side)
