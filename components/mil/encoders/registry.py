"""Every encoder by name: a new encoder is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from components.mil.encoders import applications, saved, small_cnn
from components.mil.encoders.applications import FAMILIES, build_application
from components.mil.encoders.frozen import describe_side
from components.mil.encoders.saved import build_saved
from components.mil.encoders.small_cnn import build_small_cnn
from components.mil.naming import check_name

ENCODERS: dict[str, Callable[..., keras.Model]] = {
    "small_cnn": build_small_cnn,
    "saved": build_saved,
    **{name: partial(build_application, name) for name in FAMILIES},
}
TRAINED_ALONG = ("small_cnn",)


def create_encoder(name: str, tile_px: int, **options: Any) -> keras.Model:
    """The encoder `name` for tiles of `tile_px`; of `options` it takes what it knows.

    Raises:
        InputError: there is no such encoder; suggests the nearest.
    """
    check_name("encoder", name, ENCODERS)
    return ENCODERS[name](tile_px, **options)


def default_side(name: str) -> int:
    """The side in px that an encoder shrinks tiles to where it isn't told, and its model says nothing."""
    return {"small_cnn": small_cnn.SIDE, "saved": saved.SIDE}.get(name, applications.SIDE)


def input_side(encoder: keras.Model) -> int:
    """The side in px that the encoder shrinks its tiles to."""
    return int(describe_side(encoder).side)
