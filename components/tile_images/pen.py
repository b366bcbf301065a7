"""Pen on the glass, told from tissue by what it absorbs and by its evenness over an area that no cell has.

Haematoxylin, eosin, DAB and the red chromogens all absorb green more than red (Ruifrok & Johnston 2001, table 1);
blue, cyan and green inks absorb red most. Red, yellow and violet inks are purer than any stain; black ink is neutral.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.tile_images.morphology import Mask, blur, cut_bands, grow, reduce_picture, shrink, value_range

SIDE = 1024
_EVEN = 30
_SCALE = 100
Plane = NDArray[np.int16]


def find_pen(picture: NDArray[np.uint8], glass: NDArray[np.float32]) -> Mask:
    """Pen strokes of any colour and a rim around them.

    Args:
        picture: uint8, shape [height, width, 3].
        glass: its RGB, float32, shape [3], against which colours are seen.

    Returns:
        bool, shape [height, width].
    """
    height, width = picture.shape[:2]
    factor = math.ceil(max(height, width) / SIDE)
    solid = _find_solid(reduce_picture(picture, factor), glass)
    if not solid.any():
        return np.zeros((height, width), bool)
    if factor > 1:
        solid = solid.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
    return solid


def _find_solid(picture: NDArray[np.uint8], glass: NDArray[np.float32]) -> Mask:
    ink = np.zeros(picture.shape[:2], bool)
    for outer, inner, own in cut_bands(picture.shape, 1):
        even = value_range(np.asarray(Image.fromarray(picture[outer]).convert("L"))) <= _EVEN
        blurred = Image.fromarray(blur(picture[outer]))
        ink[own] = ((colour_of_ink(blurred, glass) | _colour_of_opaque_ink(blurred)) & even)[inner]
    if not ink.any():
        return ink
    solid = grow(shrink(grow(ink, 1), 3), 2)
    return grow(solid, 4) if solid.any() else solid


def colour_of_ink(picture: Image.Image, glass: NDArray[np.float32]) -> Mask:
    """Which px have a colour that ink has and stained tissue doesn't, bool, shape [height, width]."""
    red, green, blue = _measure_density(picture, glass)
    cold = (red > 25) & (20 * red > 22 * green + 60) & (100 * red > 112 * blue)
    yellow = (blue > 60) & (100 * green < 45 * blue) & (100 * red < 20 * blue)
    violet = (green > 75) & (100 * np.maximum(red, blue) < 45 * green) & (8 * np.minimum(red, blue) > green)
    return np.asarray(cold | yellow | violet)


def _colour_of_opaque_ink(picture: Image.Image) -> Mask:
    """Ink that hides the glass: blue, cyan, green or red of its own, or black, whatever the tint of the glass."""
    red, green, blue = _measure_density(picture, np.array([245, 245, 245], np.float32))
    cold = (red > 70) & (100 * red > 112 * green) & (100 * red > 112 * blue)
    # dense eosin and blood let less red through than red ink does
    warm = (green > 75) & (4 * blue > 3 * green) & (20 * red < 3 * green)
    values = [np.asarray(plane).astype(np.int16) for plane in picture.split()]
    highest = np.maximum(np.maximum(values[0], values[1]), values[2])
    lowest = np.minimum(np.minimum(values[0], values[1]), values[2])
    return np.asarray(cold | warm | ((highest < 75) & (highest - lowest < 30)))


def _measure_density(picture: Image.Image, glass: NDArray[np.float32]) -> list[Plane]:
    """Optical density, base 10, × 100 and at most 255, of red, green and blue."""
    tables = [np.log10((level + 1) / np.arange(1, 257)) * _SCALE for level in glass]
    table = np.clip(np.concatenate(tables), 0, 255).round().astype(int).tolist()
    return [np.asarray(plane).astype(np.int16) for plane in picture.point(table).split()]
