"""Stain normalisation inside the model: every tile is brought to the colours of the cohort's train slides.

Macenko et al. 2009 (A method for normalizing histology slides for quantitative analysis) and Reinhard et al. 2001
(Color transfer between images). Tiles are stored as they were scanned; the reference is part of the saved model, so
that inference does what training did. Vahadane et al. 2016 is left out: its sparse dictionary is learnt tile by tile
in an iterative search that is no graph of TensorFlow ops, and no kept library brings one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.records.errors import InputError

METHODS = ("none", "macenko", "reinhard")
Reference = dict[str, list[Any]]

_LIGHT = 240.0
_LEAST_DENSITY = 0.15
_LEAST_PIXELS = 32
_LEAST_SHARE = 0.01
_LOW, _HIGH = 0.01, 0.99
_LEAST_SINE = 0.05
_TO_LMS = np.array(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]], np.float32
)  # Reinhard 2001, eq. 4
_TO_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]).astype(np.float32) @ np.array(
    [[1, 1, 1], [1, 1, -2], [1, -1, 0]], np.float32
)  # eq. 6
_FROM_LMS, _FROM_LAB = np.linalg.inv(_TO_LMS), np.linalg.inv(_TO_LAB)


def fit_reference(method: str, tiles: NDArray[np.uint8]) -> Reference:
    """What tiles are brought to: the median over a sample of tiles.

    Args:
        method: `macenko` or `reinhard`.
        tiles: uint8 [n, h, w, 3] of the train slides.

    Returns:
        Of Macenko, `stains` [2][3] (haematoxylin, eosin; unit vectors of optical density) and `strengths` [2]; of
        Reinhard, `means` and `deviations` [3] in lαβ.

    Raises:
        InputError: no tile of the sample holds enough stain.
    """
    pixels = _as_pixels(tf.constant(tiles))
    first, second, good = (_measure_stains if method == "macenko" else _measure_colours)(pixels)
    chosen = good.numpy()
    if not chosen.any():
        raise InputError(
            "no tile of the train slides holds enough stain to fit a reference",
            where="stain_normalisation",
            mend="train with stain_normalisation none, or tile with a larger min_tissue",
        )
    one, two = (np.median(values.numpy()[chosen].astype(np.float64), axis=0) for values in (first, second))
    if method == "macenko":
        stains = one.T / np.linalg.norm(one.T, axis=1, keepdims=True)
        return {"stains": stains.round(6).tolist(), "strengths": two.round(6).tolist()}
    return {"means": one.round(6).tolist(), "deviations": two.round(6).tolist()}


def normalise_macenko(tiles: Any, stains: Any, strengths: Any) -> Any:
    """Tiles with their own two stains replaced by the reference's.

    Args:
        tiles: 0–255, [n, h, w, 3].
        stains: reference, [2, 3].
        strengths: reference, [2]: the 99th percentile of each stain's concentration.

    Returns:
        float32 [n, h, w, 3], 0–255; a tile with too little stain, or one stain only, is as it was.
    """
    pixels = _as_pixels(tiles)
    vectors, most, good = _measure_stains(pixels)
    amounts = _separate(_density(pixels), vectors)
    scaled = amounts * (tf.constant(strengths, tf.float32) / tf.maximum(most, 1e-6))[:, None]
    made = _LIGHT * tf.exp(-tf.matmul(scaled, tf.constant(stains, tf.float32))) - 1
    made = tf.where(good[:, None, None], tf.clip_by_value(made, 0, 255), pixels)
    return tf.reshape(made, tf.shape(tiles))


def normalise_reinhard(tiles: Any, means: Any, deviations: Any) -> Any:
    """Tiles whose stained px have the reference's mean and deviation in lαβ (Reinhard 2001, eq. 10–11).

    Glass is no part of the statistics and stays as it is; px between glass and tissue are blended.

    Args:
        tiles: 0–255, [n, h, w, 3].
        means: reference, [3].
        deviations: reference, [3].

    Returns:
        float32 [n, h, w, 3], 0–255; a tile with too little stain is as it was.
    """
    pixels = _as_pixels(tiles)
    mean, deviation, good = _measure_colours(pixels)
    gain = tf.clip_by_value(tf.constant(deviations, tf.float32) / tf.maximum(deviation, 1e-3), 0.2, 5.0)
    moved = (_to_lab(pixels) - mean[:, None]) * gain[:, None] + tf.constant(means, tf.float32)
    lms = tf.pow(10.0, tf.matmul(moved, tf.constant(_FROM_LAB.T, tf.float32)))
    made = tf.clip_by_value(tf.matmul(lms, tf.constant(_FROM_LMS.T, tf.float32)), 0, 255)
    weight = tf.clip_by_value(tf.reduce_max(_density(pixels), -1, keepdims=True) / _LEAST_DENSITY, 0, 1)
    made = tf.where(good[:, None, None], weight * made + (1 - weight) * pixels, pixels)
    return tf.reshape(made, tf.shape(tiles))


def _as_pixels(tiles: Any) -> Any:
    shape = tf.shape(tiles)
    return tf.reshape(tf.cast(tiles, tf.float32), (shape[0], shape[1] * shape[2], 3))


def _density(pixels: Any) -> Any:
    """Optical density (natural logarithm); a little below 0 where px are brighter than the light is taken to be."""
    return -tf.math.log((pixels + 1) / _LIGHT)


def _enough(stained: Any) -> tuple[Any, Any]:
    count = tf.reduce_sum(stained, -1)
    share = tf.cast(tf.shape(stained)[1], tf.float32) * _LEAST_SHARE
    return count, count >= tf.maximum(share, float(_LEAST_PIXELS))


def _measure_stains(pixels: Any) -> tuple[Any, Any, Any]:
    """Stain vectors [n, 3, 2], the concentrations' 99th percentile [n, 2], and whether they hold [n]."""
    density = _density(pixels)
    stained = tf.cast(tf.reduce_max(density, -1) >= _LEAST_DENSITY, tf.float32)
    count, good = _enough(stained)
    held = tf.maximum(count, 1)[:, None]
    centred = (density - (tf.reduce_sum(density * stained[..., None], 1) / held)[:, None]) * stained[..., None]
    covariance = tf.matmul(centred, centred, transpose_a=True) / held[..., None]
    # a floor keeps the decomposition of blank tiles finite and its vectors distinct
    covariance += tf.linalg.diag(tf.constant([3e-7, 2e-7, 1e-7]))
    plane = tf.linalg.eigh(covariance)[1][:, :, 1:]
    plane *= tf.where(plane[:, :1] < 0, -1.0, 1.0)
    along = tf.matmul(density, plane)
    angle = tf.atan2(along[..., 0], along[..., 1])
    low, high = (_percentile(angle, stained, share) for share in (_LOW, _HIGH))
    ends = [
        tf.linalg.matvec(plane, tf.stack([tf.sin(at), tf.cos(at)], -1)) for at in (low, high)
    ]  # each [n, 3], unit vectors
    ends = [end * tf.where(tf.reduce_sum(end, -1, keepdims=True) < 0, -1.0, 1.0) for end in ends]
    swap = (ends[0][:, :1] > ends[1][:, :1])[..., None]  # haematoxylin takes more of the red
    vectors = tf.where(swap, tf.stack(ends, -1), tf.stack(ends[::-1], -1))
    sine = tf.norm(tf.linalg.cross(ends[0], ends[1]), axis=-1)
    amounts = _separate(density, vectors)
    most = tf.stack([_percentile(amounts[..., at], stained, _HIGH) for at in (0, 1)], -1)
    good &= (sine > _LEAST_SINE) & tf.reduce_all(most > 0.05, -1)
    return vectors, most, good


def _separate(density: Any, vectors: Any) -> Any:
    """Concentrations [n, p, 2] by least squares through the 2 × 2 normal equations, in closed form."""
    gram = tf.matmul(vectors, vectors, transpose_a=True)
    a, b, d = gram[:, 0, 0], gram[:, 0, 1], gram[:, 1, 1]
    inverse = (
        tf.stack([tf.stack([d, -b], -1), tf.stack([-b, a], -1)], -2) / tf.maximum(a * d - b * b, 1e-6)[:, None, None]
    )
    return tf.matmul(tf.matmul(density, vectors), inverse)


def _percentile(values: Any, stained: Any, share: float) -> Any:
    """The percentile [n] of the stained px of each tile: the nearest of the values [n, p]."""
    ordered = tf.sort(tf.where(stained > 0, values, np.float32(np.inf)), axis=-1)
    count = tf.reduce_sum(stained, -1)
    at = tf.cast(tf.round(tf.maximum(count - 1, 0) * share), tf.int32)
    found = tf.gather(ordered, at, axis=1, batch_dims=1)
    return tf.where(count > 0, found, tf.zeros_like(found))


def _to_lab(pixels: Any) -> Any:
    lms = tf.matmul(tf.maximum(pixels, 1.0), tf.constant(_TO_LMS.T))
    return tf.matmul(tf.math.log(lms) / np.float32(np.log(10)), tf.constant(_TO_LAB.T))


def _measure_colours(pixels: Any) -> tuple[Any, Any, Any]:
    """Mean [n, 3] and deviation [n, 3] of the stained px in lαβ, and whether there are enough [n]."""
    stained = tf.cast(tf.reduce_max(_density(pixels), -1) >= _LEAST_DENSITY, tf.float32)
    count, good = _enough(stained)
    held = tf.maximum(count, 1)[:, None]
    lab = _to_lab(pixels)
    mean = tf.reduce_sum(lab * stained[..., None], 1) / held
    variance = tf.reduce_sum(tf.square(lab - mean[:, None]) * stained[..., None], 1) / held
    return mean, tf.sqrt(variance), good


@keras.saving.register_keras_serializable(package="bagline")
class NormaliseStain(keras.layers.Layer):
    """Stain normalisation as a layer: [n, h, w, 3], 0–255, to float32 of the same shape, in whole values.

    Args:
        method: `macenko` or `reinhard`.
        reference: of `fit_reference`.
    """

    def __init__(self, method: str, reference: Reference, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32", "autocast": False})
        self.method = method
        self.reference = {name: np.asarray(values).tolist() for name, values in reference.items()}

    def call(self, tiles: Any) -> Any:
        """The normalised tiles."""
        apply: Callable[..., Any] = normalise_macenko if self.method == "macenko" else normalise_reinhard
        return tf.stop_gradient(tf.round(apply(tiles, **self.reference)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "method": self.method, "reference": self.reference}


def add_normalisation(tiles: Any, method: str, reference: Reference | None) -> Any:
    """The Keras tensor `tiles` normalised by `method`, or itself where that is `none` or nothing was fitted."""
    return tiles if method == "none" or reference is None else NormaliseStain(method, reference, name="stain")(tiles)
