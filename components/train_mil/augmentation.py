"""Augmentation of tiles on the fly: turned and mirrored, lighter or darker, tinted."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

BRIGHTNESS = 20.0
CONTRAST = 0.15
COLOUR = 0.06


def augment_tiles(tiles: Any, seed: Any) -> Any:
    """Each tile by itself: a flip, a quarter turn, contrast, brightness and a gain per colour.

    Args:
        tiles: uint8 [b, n, s, s, 3].
        seed: int32 [2]; the same seed gives the same pixels.

    Returns:
        uint8 [b, n, s, s, 3].
    """
    shape = tf.shape(tiles)
    side = tiles.shape[2]
    flat = tf.reshape(tiles, (-1, side, side, 3))
    count = tf.shape(flat)[0]

    def coin(salt: int) -> Any:
        return tf.random.stateless_uniform((count, 1, 1, 1), tf.add(seed, [0, salt])) < 0.5

    def uniform(salt: int, channels: int, reach: float) -> Any:
        return tf.random.stateless_uniform((count, 1, 1, channels), tf.add(seed, [0, salt]), -reach, reach)

    flat = tf.where(coin(1), flat, tf.reverse(flat, [1]))
    flat = tf.where(coin(2), flat, tf.reverse(flat, [2]))
    flat = tf.where(coin(3), flat, tf.transpose(flat, (0, 2, 1, 3)))
    values = tf.cast(flat, tf.float32)
    mean = tf.reduce_mean(values, (1, 2), keepdims=True)
    gain = 1 + uniform(4, 1, CONTRAST)
    offset = mean * (1 + uniform(5, 3, COLOUR) - gain) + uniform(6, 1, BRIGHTNESS)
    return tf.reshape(tf.cast(tf.clip_by_value(values * gain + offset, 0.0, 255.0), tf.uint8), shape)
