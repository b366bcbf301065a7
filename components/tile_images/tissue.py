"""Where a slide holds tissue, found on a low-resolution picture of it.

Bright slides are held against their own glass: the brightest common colour of smooth px, whatever its tint
(but not a pink one, which is tissue that fills the picture). Tissue absorbs some colours more than others or
is plainly darker; shade on the glass does neither. Pen strokes are smooth, solid, and of a colour or blackness
that stains don't have; black borders are black from the picture's edge inwards. Fluorescence, bright on black,
has a threshold of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from components.readers.protocol import Picture

Mask = NDArray[np.bool_]
_Floats = NDArray[np.float32]
Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

_DARK = 50
_BORDER_BLACK = 40
_SMOOTH = 12
_WHITE = np.array([245, 245, 245], np.float32)
_COLOURED_DENSITY = 0.04
_PLAIN_DENSITY = 0.13


def tissue_mask(picture: Picture) -> Mask:
    """Where there is tissue.

    Args:
        picture: the slide at low resolution (about 2–64 level-0 px a px), uint8, shape [height, width, 3].

    Returns:
        bool, shape [height, width]: neither glass, pen, nor black border.
    """
    return find_tissue_and_pen(picture)[0]


def find_tissue_and_pen(picture: Picture) -> tuple[Mask, Mask]:
    """Where there is tissue, as `tissue_mask`, and where there is pen, both bool, shape [height, width]."""
    planes = _blur_planes(picture)
    if is_dark_field(picture):
        return _clean(_bright_on_black(planes)), np.zeros(picture.shape[:2], bool)
    border = find_border(planes)
    grey_range = _grey_range(picture)
    smooth = (grey_range <= _SMOOTH) & ~border
    glass = estimate_glass(picture, smooth)
    density = [_optical_density(plane, level) for plane, level in zip(planes, glass, strict=True)]
    densest = _highest(density)
    coloured = densest - _lowest(density)
    on_glass = smooth & (densest < 0.1)
    noise = float(np.median(coloured[on_glass][::7])) if on_glass.any() else 0.0
    found = (coloured > max(_COLOURED_DENSITY, 4 * noise)) | (densest > _PLAIN_DENSITY)
    pen = find_pen(planes, grey_range, glass) & ~border
    found &= ~(border | pen)
    return _clean(found) & ~border, pen


def is_dark_field(picture: Picture) -> bool:
    """Whether this is signal on black, such as fluorescence: mostly black and hardly anything as bright as glass."""
    few = picture[::3, ::3]
    return bool((few.max(axis=2) < _DARK).mean() > 0.5 and (few.mean(axis=2) > 150).mean() < 0.1)


def find_border(planes: Planes) -> Mask:
    """Scanner borders: px black all the way from an edge of the picture, bool, shape [height, width]."""
    black = _highest(planes) < _BORDER_BLACK
    border = np.zeros_like(black)
    edges = (black[0], black[-1], black[:, 0], black[:, -1])
    if not any(edge.any() for edge in edges):
        return border
    for axis in (0, 1):
        border |= np.logical_and.accumulate(black, axis=axis)
        border |= np.flip(np.logical_and.accumulate(np.flip(black, axis), axis=axis), axis)
    return _grow(border, 2)


def estimate_glass(picture: Picture, smooth: Mask) -> _Floats:
    """The colour of the empty glass, float32 RGB, shape [3]; white where no glass is seen.

    Args:
        picture: uint8, shape [height, width, 3].
        smooth: which px may be glass, bool, shape [height, width].
    """
    step = max(1, int((smooth.size / 250_000) ** 0.5))
    few = smooth[::step, ::step]
    pixels = picture[::step, ::step][few].astype(np.int32)
    pixels = pixels[pixels.sum(axis=1) > 330]
    if len(pixels) == 0:
        return _WHITE
    counts = np.bincount((pixels >> 3) @ np.array([1, 32, 1024]), minlength=32768)
    common = np.flatnonzero(counts >= 0.005 * few.size)
    colours = np.stack([common % 32, common // 32 % 32, common // 1024], axis=1) * 8 + 4
    for colour in colours[np.argsort(-colours.sum(axis=1), kind="stable")]:
        red, green, blue = (int(value) for value in colour)
        if min(red, blue) - green > 16:
            continue
        near = pixels[(np.abs(pixels - colour) <= 12).all(axis=1)]
        return np.asarray(np.median(near, axis=0), np.float32)
    return _WHITE


def find_pen(planes: Planes, grey_range: NDArray[np.uint8], glass: _Floats) -> Mask:
    """Pen strokes, blue, green, red or black, and a rim around them, bool, shape [height, width].

    Args:
        planes: red, green and blue of the slightly blurred picture, uint8, each of shape [height, width].
        grey_range: the range of grey within 3 × 3 px, uint8, shape [height, width].
        glass: its colour, against which colours are seen.
    """
    red, green, blue = (_against_glass(plane, level) for plane, level in zip(planes, glass, strict=True))
    highest, lowest = _highest((red, green, blue)), _lowest((red, green, blue))
    spread = highest - lowest
    blue_pen = (blue >= highest) & (green + 30 > red) & (blue - green > 40) & (5 * spread > 2 * highest)
    cyan_pen = (green > red + 25) & (blue > red - 10) & (10 * spread > 3 * highest)
    green_pen = (green >= highest) & (green > red + 25) & (green > blue + 15) & (10 * spread > 3 * highest)
    red_pen = (red >= highest) & (10 * spread > 7 * highest) & (red > 120) & (blue < green + 25)
    black_pen = (highest < 75) & (spread < 30)
    # opaque ink is neutral in the picture itself, not against tinted glass
    darkest = _highest(planes)
    black_pen |= (darkest < 75) & (darkest - _lowest(planes) < 30)
    core: Mask = (blue_pen | cyan_pen | green_pen | red_pen | black_pen) & (grey_range <= 3 * _SMOOTH)
    if not core.any():
        return core
    solid = _grow(_shrink(_grow(core, 1), 3), 2)
    return _grow(solid, 4)


def _bright_on_black(planes: Planes) -> Mask:
    signal = _highest(planes)
    black = float(np.percentile(signal[::3, ::3], 25))
    below = signal[signal <= black]
    noise = float(black - below.mean()) if below.size else 0.0
    return np.asarray(signal > black + max(8.0, 5 * noise))


def _optical_density(plane: NDArray[np.uint8], glass: float) -> _Floats:
    table = np.log((glass + 1) / np.arange(1, 257, dtype=np.float32))
    return np.asarray(np.maximum(table, 0)[plane], np.float32)


def _against_glass(plane: NDArray[np.uint8], glass: float) -> NDArray[np.int16]:
    table = np.clip(np.arange(256) * (245 / max(float(glass), 1)), 0, 255)
    return np.asarray(table.astype(np.int16)[plane])


def _highest(planes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.asarray(np.maximum(np.maximum(planes[0], planes[1]), planes[2]))


def _lowest(planes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.asarray(np.minimum(np.minimum(planes[0], planes[1]), planes[2]))


def _blur_planes(picture: Picture) -> Planes:
    blurred = Image.fromarray(picture).filter(ImageFilter.BoxBlur(1))
    red, green, blue = (np.asarray(plane) for plane in blurred.split())
    return red, green, blue


def _grey_range(picture: Picture) -> NDArray[np.uint8]:
    """The range of grey within 3 × 3 px."""
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    return np.asarray(_spread(grey, 1, np.maximum) - _spread(grey, 1, np.minimum))


def _spread(plane: NDArray[Any], radius: int, combine: Any) -> NDArray[Any]:
    """The largest or smallest value within `radius` px, along rows and then columns."""
    for axis in (0, 1):
        length = plane.shape[axis]
        reach = 0
        while reach < min(radius, length - 1):
            step = min(radius - reach, reach + 1)
            lines = np.moveaxis(plane, axis, 0)
            wider = lines.copy()
            combine(wider[step:], lines[:-step], out=wider[step:])
            combine(wider[:-step], lines[step:], out=wider[:-step])
            plane = np.moveaxis(wider, 0, axis)
            reach += step
    return plane


def _grow(mask: Mask, radius: int) -> Mask:
    return _spread(mask, radius, np.logical_or)


def _shrink(mask: Mask, radius: int) -> Mask:
    return _spread(mask, radius, np.logical_and)


def _clean(mask: Mask) -> Mask:
    """Closes gaps of up to 6 px, then lets the majority of 5 × 5 px decide, which removes specks."""
    if not mask.any():
        return mask
    closed = _shrink(_grow(mask, 3), 3) | mask
    share = Image.fromarray(closed.view(np.uint8) * np.uint8(255)).filter(ImageFilter.BoxBlur(2))
    return np.asarray(np.asarray(share) > 127)
