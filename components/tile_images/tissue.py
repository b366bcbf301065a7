"""Where a slide holds tissue, found on a low-resolution picture of it.

Bright slides are held against their own glass: the brightest common colour of smooth px, whatever its tint
(but not a pink one, which is tissue that fills the picture). Tissue absorbs some colours more than others or
is plainly darker; shade on the glass does neither. Pen strokes are smooth, solid, and of a colour or blackness
that stains don't have; black borders are black from the picture's edge inwards. Fluorescence, bright on black,
has a threshold of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from components.readers.protocol import Picture

Mask = NDArray[np.bool_]
_Floats = NDArray[np.float32]

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
    if is_dark_field(picture):
        return _clean(_bright_on_black(picture))
    border = find_border(picture)
    smooth = _smoothness(picture) <= _SMOOTH
    glass = estimate_glass(picture, smooth & ~border)
    density = _optical_density(_blur(picture, 1), glass)
    coloured = density.max(axis=2) - density.min(axis=2)
    densest = density.max(axis=2)
    on_glass = smooth & ~border & (densest < 0.1)
    noise = float(np.median(coloured[on_glass])) if on_glass.any() else 0.0
    found = (coloured > max(_COLOURED_DENSITY, 4 * noise)) | (densest > _PLAIN_DENSITY)
    return _clean(found & ~border & ~find_pen(picture, glass)) & ~border


def is_dark_field(picture: Picture) -> bool:
    """Whether this is signal on black, such as fluorescence: mostly black and hardly anything as bright as glass."""
    brightest = picture.max(axis=2)
    return bool((brightest < _DARK).mean() > 0.5 and (picture.mean(axis=2) > 150).mean() < 0.1)


def find_border(picture: Picture) -> Mask:
    """Scanner borders: px black all the way from an edge of the picture, bool, shape [height, width]."""
    black = _blur(picture, 1).max(axis=2) < _BORDER_BLACK
    border = np.zeros_like(black)
    for axis in (0, 1):
        border |= np.logical_and.accumulate(black, axis=axis)
        border |= np.flip(np.logical_and.accumulate(np.flip(black, axis), axis=axis), axis)
    return _grow(border, 2) if border.any() else border


def estimate_glass(picture: Picture, smooth: Mask) -> _Floats:
    """The colour of the empty glass, float32 RGB, shape [3]; white where no glass is seen.

    Args:
        picture: uint8, shape [height, width, 3].
        smooth: which px may be glass, bool, shape [height, width].
    """
    pixels = picture[smooth]
    pixels = pixels[pixels.mean(axis=1) > 110]
    if len(pixels) == 0:
        return _WHITE
    bins = (pixels >> 3).astype(np.int32) @ np.array([1, 32, 1024], np.int32)
    counts = np.bincount(bins, minlength=32768)
    common = np.flatnonzero(counts >= 0.005 * smooth.size)
    colours = np.stack([common % 32, common // 32 % 32, common // 1024], axis=1) * 8 + 4
    for colour in colours[np.argsort(-colours.sum(axis=1), kind="stable")]:
        red, green, blue = (int(value) for value in colour)
        if min(red, blue) - green > 16:
            continue
        near = pixels[(np.abs(pixels.astype(np.int16) - colour) <= 12).all(axis=1)]
        return np.median(near, axis=0).astype(np.float32)
    return _WHITE


def find_pen(picture: Picture, glass: _Floats) -> Mask:
    """Pen strokes, blue, green, red or black, and a rim around them, bool, shape [height, width].

    Args:
        picture: uint8, shape [height, width, 3].
        glass: its colour, against which colours are seen.
    """
    seen = np.clip(_blur(picture, 1).astype(np.float32) * (245 / np.maximum(glass, 1)), 0, 255)
    red, green, blue = seen[..., 0], seen[..., 1], seen[..., 2]
    highest, lowest = seen.max(axis=2), seen.min(axis=2)
    spread = highest - lowest
    saturation = spread / np.maximum(highest, 1)
    blue_pen = (blue >= highest) & (green + 30 > red) & (blue - green > 40) & (saturation > 0.4)
    cyan_or_green_pen = (green > red + 25) & (blue > red - 10) & (saturation > 0.3)
    green_pen = (green >= highest) & (green > red + 25) & (green > blue + 15) & (saturation > 0.3)
    red_pen = (red >= highest) & (saturation > 0.7) & (red > 120)
    black_pen = (highest < 75) & (spread < 30)
    core = (blue_pen | cyan_or_green_pen | green_pen | red_pen | black_pen) & (_smoothness(picture) <= 3 * _SMOOTH)
    if not core.any():
        return core
    solid = _grow(_shrink(_grow(core, 1), 3), 2)
    return _grow(solid, 4)


def _bright_on_black(picture: Picture) -> Mask:
    signal = _blur(picture, 1).max(axis=2).astype(np.float32)
    black = float(np.percentile(signal, 25))
    below = signal[signal <= black]
    noise = float(black - below.mean()) if below.size else 0.0
    return signal > black + max(8.0, 5 * noise)


def _optical_density(picture: Picture, glass: _Floats) -> _Floats:
    table = np.log(np.arange(1, 257, dtype=np.float32))
    density: _Floats = np.maximum(np.log(glass + 1) - table[picture], 0).astype(np.float32)
    return density


def _smoothness(picture: Picture) -> NDArray[np.int16]:
    """The range of grey within 3 × 3 px."""
    grey = Image.fromarray(picture).convert("L")
    high = np.asarray(grey.filter(ImageFilter.MaxFilter(3)), np.int16)
    return high - np.asarray(grey.filter(ImageFilter.MinFilter(3)), np.int16)


def _blur(picture: Picture, radius: int) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.BoxBlur(radius)))


def _filter(mask: Mask, kind: ImageFilter.Filter) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).filter(kind))


def _grow(mask: Mask, radius: int) -> Mask:
    return _filter(mask, ImageFilter.MaxFilter(2 * radius + 1)) > 0


def _shrink(mask: Mask, radius: int) -> Mask:
    return _filter(mask, ImageFilter.MinFilter(2 * radius + 1)) > 0


def _clean(mask: Mask) -> Mask:
    """Closes gaps of up to 6 px, then lets the majority of 5 × 5 px decide, which removes specks."""
    if not mask.any():
        return mask
    closed = _shrink(_grow(mask, 3), 3) | mask
    return _filter(closed, ImageFilter.BoxBlur(2)) > 127
