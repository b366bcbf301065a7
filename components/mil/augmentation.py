"""Augmentation of tiles on the fly: turned and mirrored, lighter or darker, tinted, stained more or less."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

BRIGHTNESS = 20.0
CONTRAST = 0.15
COLOUR = 0.06
# Optical density of haematoxylin, eosin and DAB, a row each (Ruifrok & Johnston 2001, their published matrix)
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


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


def augment_stain(tiles: Any, seed: Any, strength: float) -> Any:
    """Each tile by itself: more or less of haematoxylin, eosin and a third stain, each by its own factor and offset.

    Tellez et al. 2018 (IEEE TMI 37, 2126) and 2019 (Medical Image Analysis 58, 101544): stains s become α s + β with
    α from 1 ± strength and β from ± strength. They are told apart by colour deconvolution (Ruifrok & Johnston 2001).
    Optical density is -ln((v + 1) / 256). Tellez' light setting is 0.05, the strong one 0.2; glass stays near white.

    Args:
        tiles: uint8 [..., s, s, 3].
        seed: int32 [2]; the same seed gives the same pixels.
        strength: 0 gives the tiles as they are.

    Returns:
        uint8, the shape of `tiles`.
    """
    shape = tf.shape(tiles)
    side = tiles.shape[-2]
    flat = tf.reshape(tiles, (-1, side * side, 3))
    stains = HED / np.linalg.norm(HED, axis=1, keepdims=True)
    density = -tf.math.log((tf.cast(flat, tf.float32) + 1) / 256)
    amounts = tf.matmul(density, tf.constant(np.linalg.inv(stains), tf.float32))
    draws = tf.random.stateless_uniform((tf.shape(flat)[0], 1, 3, 2), tf.add(seed, [0, 7]), -strength, strength)
    changed = tf.matmul(amounts * (1 + draws[..., 0]) + draws[..., 1], tf.constant(stains, tf.float32))
    values = tf.round(256 * tf.exp(-changed) - 1)
    return tf.reshape(tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8), shape)
