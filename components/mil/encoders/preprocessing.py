"""From stored tiles to what an encoder sees: the same pixels in the input pipeline and inside the saved model."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def shrink_tiles(tiles: Any, side: int) -> Any:
    """Tiles [n, h, w, 3] brought to `side` × `side` px, in whole values: doing it twice changes nothing.

    Args:
        tiles: uint8 or float, 0–255, of known height and width.
        side: px; where it divides the tile's side, blocks of px are averaged, else the tile is resized bilinearly
            with antialiasing.

    Returns:
        float32 [n, side, side, 3] of whole numbers 0–255.
    """
    height, width = tiles.shape[-3], tiles.shape[-2]
    values = ops.cast(tiles, "float32")
    if (height, width) == (side, side):
        return values
    if height == width and height % side == 0:
        values = _average_blocks(values, height // side, side)
    else:
        values = ops.image.resize(values, (side, side), interpolation="bilinear", antialias=True)
    return ops.clip(ops.round(values), 0.0, 255.0)


def _average_blocks(values: Any, block: int, side: int) -> Any:
    """Mean of `block` × `block` px, rows first: ten times as fast on a CPU as average pooling of three channels."""
    rows = ops.reshape(values, (-1, side, block, side * block * 3))
    rows = sum((rows[:, :, number] for number in range(1, block)), start=rows[:, :, 0])
    columns = ops.reshape(rows, (-1, side, side, block, 3))
    total = sum((columns[:, :, :, number] for number in range(1, block)), start=columns[:, :, :, 0])
    return total / block**2


@keras.saving.register_keras_serializable(package="bagline")
class ShrinkTiles(keras.layers.Layer):
    """`shrink_tiles` as a layer: uint8 [n, h, w, 3] to float32 [n, side, side, 3], 0–255.

    Args:
        side: px of the output.
    """

    def __init__(self, side: int, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32", "autocast": False})
        self.side = side

    def call(self, tiles: Any) -> Any:
        """The shrunk tiles."""
        return shrink_tiles(tiles, self.side)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """[n, side, side, 3]."""
        return (input_shape[0], self.side, self.side, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "side": self.side}
