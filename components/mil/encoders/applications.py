"""Networks of Keras Applications as encoders, with weights from a file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from components.mil.encoders.fetch import fetch_model
from components.mil.encoders.preprocessing import ShrinkTiles
from components.mil.stain import add_normalisation
from components.records.errors import InputError

RANDOM = "random"
SIDE = 224


@dataclass(frozen=True)
class Family:
    """A network, and what it does to pixels: `caffe` (BGR less the mean), `torch` (0–1, standardised); empty: its own.

    `least` is the smallest side it takes, px.
    """

    make: Callable[..., keras.Model]
    pixels: str = ""
    least: int = 32


FAMILIES: dict[str, Family] = {
    "resnet50": Family(keras.applications.ResNet50, "caffe"),
    "resnet101": Family(keras.applications.ResNet101, "caffe"),
    "densenet121": Family(keras.applications.DenseNet121, "torch"),
    "efficientnetv2_b0": Family(keras.applications.EfficientNetV2B0),
    "efficientnetv2_s": Family(keras.applications.EfficientNetV2S),
}


@keras.saving.register_keras_serializable(package="bagline")
class PreparePixels(layers.Layer):
    """Pixels 0–255 as a family of networks was trained to see them.

    Args:
        pixels: `caffe` or `torch`, see `Family`.
    """

    def __init__(self, pixels: str, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32"})
        self.pixels = pixels

    def call(self, pictures: Any) -> Any:
        """float32 [n, h, w, 3] to float32 of that shape."""
        return keras.applications.imagenet_utils.preprocess_input(
            pictures, data_format="channels_last", mode=self.pixels
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "pixels": self.pixels}


def build_application(
    name: str, tile_px: int, encoder_path: str = "", freeze_encoder: bool = True, input_px: int = 0, **options: Any
) -> keras.Model:
    """A network of Keras Applications without its top, its feature map averaged over the area.

    Args:
        name: a key of `FAMILIES`.
        tile_px: side of the tiles, px.
        encoder_path: weights file of the network without its top (`.weights.h5`, or Keras's own `_notop.h5`), or
            `random`.
        freeze_encoder: keep its weights as they are; also keeps its layers in inference mode.
        input_px: side the tiles are brought to, px; 0 for 224.
        options: `stain_normalisation` and `stain_reference`, as `add_normalisation` takes them.

    Returns:
        Keras model, uint8 [n, h, w, 3] to float32 [n, d].

    Raises:
        InputError: no weights are given, or they are another network's.
    """
    mend = f"give encoder_path the file of {name}'s weights without the top, or 'random'"
    if not encoder_path:
        raise InputError(f"the encoder {name!r} needs encoder_path", mend=mend)
    family, side = FAMILIES[name], input_px or SIDE
    if side < family.least:
        raise InputError(f"input_px {side} is below {family.least}", where=f"encoder {name}", mend="give a larger one")
    network = family.make(weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3))
    if encoder_path != RANDOM:
        path = fetch_model(encoder_path, mend)
        try:
            with warnings.catch_warnings():
                # of a file that lacks layers Keras only warns, and leaves their weights as they were
                warnings.filterwarnings("error", message="Skipping", category=UserWarning)
                network.load_weights(path)
        except (ValueError, TypeError, OSError, KeyError, IndexError, UserWarning) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"holds no weights of {name} ({reason})", where=encoder_path, mend=mend) from None
    network.trainable = not freeze_encoder
    tiles = keras.Input((None, None, 3), dtype="uint8", name="tiles")
    x = ShrinkTiles(side, name="shrink")(tiles)
    x = add_normalisation(x, options.get("stain_normalisation", "none"), options.get("stain_reference"))
    if family.pixels:
        x = PreparePixels(family.pixels, name="prepare")(x)
    x = network(x, training=False) if freeze_encoder else network(x)
    x = layers.Activation("linear", dtype="float32", name="embedding")(x)
    return keras.Model(tiles, x, name="encoder")
