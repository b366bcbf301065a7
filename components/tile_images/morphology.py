"""Neighbourhoods of low-resolution pictures and masks: extremes, growing, shrinking, averages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]
Plane = NDArray[np.uint8]
# What is made of a picture on the way to a mask takes many times its memory: it is made of so many px at a time.
_BAND_PX = 1 << 17


def cut_bands(shape: tuple[int, ...], halo: int, every: int = 1) -> Iterator[tuple[slice, slice, slice]]:
    """Bands of rows in which a picture is worked through, in memory that does not depend on its height.

    Args:
        shape: height and width first.
        halo: rows beyond a band that its own rows depend on.
        every: a band begins at a multiple of it.

    Yields:
        The rows to look at, which of those are the band's own, and where the own ones lie in the picture.
    """
    height = shape[0]
    step = max(_BAND_PX // max(shape[1], 1), 4 * halo, 1)
    step += -step % every
    for top in range(0, height, step):
        start, stop = max(top - halo, 0), min(top + step, height)
        yield slice(start, stop + halo), slice(top - start, stop - start), slice(top, stop)


def reduce_picture(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The picture with boxes of `factor` × `factor` px averaged into one; those at the right and lower edge are cut.

    Args:
        picture: uint8, shape [height, width, 3] or [height, width].
        factor: px; 1 gives the picture itself.
    """
    if factor == 1:
        return picture
    bands = cut_bands(picture.shape, 0, factor)
    return np.concatenate([np.asarray(Image.fromarray(picture[own]).reduce(factor)) for _, _, own in bands])


def spread(plane: NDArray[Any], radius: int, combine: Any) -> NDArray[Any]:
    """What `combine` (such as `np.maximum`) makes of all values within `radius` px along rows and columns.

    Args:
        plane: shape [height, width].
        radius: px; beyond the edge there is nothing.
        combine: a ufunc of two arrays that gives the same for a value twice.
    """
    for axis in (0, 1):
        length = plane.shape[axis]
        reach = 0
        while reach < min(radius, length - 1):
            step = min(radius - reach, reach + 1)
            before: Any = (slice(None, -step),) if axis == 0 else (slice(None), slice(None, -step))
            after: Any = (slice(step, None),) if axis == 0 else (slice(None), slice(step, None))
            wider = plane.copy()
            combine(wider[after], plane[before], out=wider[after])
            combine(wider[before], plane[after], out=wider[before])
            plane = wider
            reach += step
    return plane


def grow(mask: Mask, radius: int) -> Mask:
    """The mask and all within `radius` px of it, a square."""
    return spread(mask, radius, np.logical_or)


def shrink(mask: Mask, radius: int) -> Mask:
    """What of the mask has only mask within `radius` px; the picture's edge takes nothing away."""
    return spread(mask, radius, np.logical_and)


def close(mask: Mask, radius: int) -> Mask:
    """The mask and its gaps that no square of (2 radius + 1)² px fits into."""
    if radius < 1 or not mask.any():
        return mask
    return np.asarray(shrink(grow(mask, radius), radius) | mask)


def value_range(plane: Plane) -> Plane:
    """The range of values within 3 × 3 px."""
    return np.asarray(spread(plane, 1, np.maximum) - spread(plane, 1, np.minimum))


def sum_box(values: NDArray[Any], radius: int, kind: Any) -> NDArray[Any]:
    """Sums over (2 radius + 1)² px; at the edge the outermost px counts for those beyond.

    Args:
        values: shape [height, width] or [height, width, channels].
        radius: px, a small one: each is an addition.
        kind: dtype that holds the sums.
    """
    height, width = values.shape[:2]
    edges = ((radius, radius), (radius, radius), (0, 0))[: values.ndim]
    padded = np.pad(values, edges, mode="edge")
    rows = padded[:height].astype(kind)
    for offset in range(1, 2 * radius + 1):
        rows += padded[offset : offset + height]
    total = rows[:, :width].copy()
    for offset in range(1, 2 * radius + 1):
        total += rows[:, offset : offset + width]
    return total


def blur(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of 3 × 3 px, uint8, of the picture's shape."""
    return (sum_box(picture, 1, np.uint16) // np.uint16(9)).astype(np.uint8)


def clean(mask: Mask) -> Mask:
    """Closes gaps of up to 6 px, then lets the majority of 5 × 5 px decide, which removes specks."""
    cleaned = np.zeros_like(mask)
    for outer, inner, own in cut_bands(mask.shape, 3 + 3 + 2):
        some = mask[outer]
        if some.any():
            cleaned[own] = (sum_box(close(some, 3).view(np.uint8), 2, np.uint8) > 12)[inner]
    return cleaned
