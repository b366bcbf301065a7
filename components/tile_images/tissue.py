"""Where a slide holds tissue, found on a low-resolution picture of it.

Bright slides are held against their own glass: the brightest common colour of smooth px, whatever its tint
(but not a pink one, which is tissue that fills the picture). Tissue absorbs some colours more than others or
is plainly darker; shade on the glass does neither. Pen is left out (`components.tile_images.pen`); black borders are
black from the picture's edge inwards. Fluorescence, bright on black, has a threshold of its own. What was found is
trimmed of the rim that blurring gave it; then gaps in it (lumen, fat, pale stroma) are closed, up to a given width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.readers.protocol import Picture
from components.tile_images.morphology import (
    Mask,
    blur,
    clean,
    close,
    cut_bands,
    grow,
    reduce_picture,
    shrink,
    value_range,
)
from components.tile_images.pen import find_pen

METHODS = ("auto", "otsu", "fixed", "all")
_Floats = NDArray[np.float32]
Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

_DARK = 50
_BORDER_BLACK = 40
_SMOOTH = 12
_WHITE = np.array([245, 245, 245], np.float32)
_COLOURED_DENSITY = 0.04
_PLAIN_DENSITY = 0.13
_RIM_DENSITY = 0.02
_DENSITY_STEPS = 200.0
_GLASS_SAMPLES = 65_536
_FOLD_SIDE = 512


@dataclass(frozen=True)
class Findings:
    """What is where on a low-resolution picture: bool masks of its [height, width].

    Attributes:
        tissue: neither glass, pen, nor black border.
        pen: pen strokes with a rim around them.
        fold: tissue that lies double.
    """

    tissue: Mask
    pen: Mask
    fold: Mask


def tissue_mask(picture: Picture) -> Mask:
    """Where there is tissue.

    Args:
        picture: the slide at low resolution (about 2–64 level-0 px a px), uint8, shape [height, width, 3].

    Returns:
        bool, shape [height, width]: neither glass, pen, nor black border.
    """
    return examine_picture(picture).tissue


def find_tissue_and_pen(picture: Picture) -> tuple[Mask, Mask]:
    """Where there is tissue, as `tissue_mask`, and where there is pen, both bool, shape [height, width]."""
    found = examine_picture(picture)
    return found.tissue, found.pen


def examine_picture(
    picture: Picture, method: str = "auto", threshold: float = 0.0, folds: bool = False, gap: int = 0
) -> Findings:
    """Tissue, pen and folds.

    Args:
        picture: the slide at low resolution, uint8, shape [height, width, 3].
        method: `auto`; `otsu`, whose threshold splits the densities of this very picture in two; `fixed`, which takes
            what is denser than `threshold`; `all`, which takes the whole picture (pen is still found).
        threshold: optical density (natural logarithm) of the densest channel, for `fixed`; on black, the brightness
            above the background, 0–255.
        folds: whether folds are looked for; else none is found.
        gap: gaps in the tissue up to that wide count as tissue, px of the picture; 0 closes only what cleaning does.
    """
    nothing = np.zeros(picture.shape[:2], bool)
    if is_dark_field(picture):
        bright = _find_bright(_measure_brightness(picture), method, threshold)
        return Findings(close(bright, gap // 2), nothing, nothing)
    border = _find_border(picture)
    glass = estimate_glass(picture, border)
    pen = find_pen(picture, glass)
    pen &= ~border
    if method == "all":
        held = found = ~nothing
    else:
        if method == "fixed":
            found = _measure_densest(picture, glass) > threshold * _DENSITY_STEPS
        elif method == "otsu":
            densest = _measure_densest(picture, glass)
            found = densest > _otsu(densest[~(border | pen)])
        else:
            found = _find_absorbing(picture, glass, border)
        found &= ~border
        found &= ~pen
        found = clean(found)
        found &= ~border
        held = trim_rim(found, picture, glass)
        found = close(held, gap // 2)
        found &= ~(border | pen)
    fold = find_folds(picture, glass, held & ~pen) if folds else nothing
    return Findings(found, pen, fold)


def _find_absorbing(picture: Picture, glass: _Floats, border: Mask) -> Mask:
    # Where all channels absorb plainly the lead of one does not matter: it is set above all that may be asked of it.
    lead = np.empty(picture.shape[:2], np.uint8)
    on_glass = []
    for outer, inner, own in cut_bands(picture.shape, 1, 3):
        densest, coloured = (plane[inner] for plane in _measure_density(_split(blur(picture[outer])), glass))
        bare = _find_smooth(picture[outer])[inner][::3, ::3] & ~border[own][::3, ::3]
        on_glass.append(coloured[::3, ::3][bare & (densest[::3, ::3] < 0.1 * _DENSITY_STEPS)])
        lead[own] = np.where(densest > _PLAIN_DENSITY * _DENSITY_STEPS, 255, coloured)
    levels = np.concatenate(on_glass)
    noise = float(np.median(levels)) if levels.size else 0.0
    return np.asarray(lead > max(_COLOURED_DENSITY * _DENSITY_STEPS, 4 * noise))


def _measure_densest(picture: Picture, glass: _Floats) -> NDArray[np.uint8]:
    densest = np.empty(picture.shape[:2], np.uint8)
    for outer, inner, own in cut_bands(picture.shape, 1):
        densest[own] = _measure_density(_split(blur(picture[outer])), glass)[0][inner]
    return densest


def _measure_brightness(picture: Picture) -> NDArray[np.uint8]:
    brightest = np.empty(picture.shape[:2], np.uint8)
    for outer, inner, own in cut_bands(picture.shape, 1):
        brightest[own] = _highest(_split(blur(picture[outer])))[inner]
    return brightest


def _find_smooth(picture: Picture) -> Mask:
    return np.asarray(value_range(np.asarray(Image.fromarray(picture).convert("L"))) <= _SMOOTH)


def _find_border(picture: Picture) -> Mask:
    edges = blur(picture[:2])[0], blur(picture[-2:])[-1], blur(picture[:, :2])[:, 0], blur(picture[:, -2:])[:, -1]
    if not any((edge.max(axis=1) < _BORDER_BLACK).any() for edge in edges):
        return np.zeros(picture.shape[:2], bool)
    return find_border((_measure_brightness(picture),))


def trim_rim(tissue: Mask, picture: Picture, glass: _Floats) -> Mask:
    """The mask without those px of its rim that look like glass themselves, and are in it for their neighbours only.

    Args:
        tissue: bool, shape [height, width].
        picture: not blurred, uint8, shape [height, width, 3].
        glass: its RGB, float32, shape [3].
    """
    inside = shrink(tissue, 1)
    rim = tissue & ~inside
    if rim.any():
        density = np.log((glass + 1) / (picture[rim].astype(np.float32) + 1))
        lead = density.max(axis=1) - density.min(axis=1)
        inside[rim] = (density.max(axis=1) > _RIM_DENSITY) | (lead > _RIM_DENSITY)
    return inside


def is_dark_field(picture: Picture) -> bool:
    """Whether this is signal on black, such as fluorescence: mostly black and hardly anything as bright as glass."""
    red, green, blue = (picture[::3, ::3, channel] for channel in range(3))
    highest = np.maximum(np.maximum(red, green), blue)
    mean = (red.astype(np.uint16) + green + blue) // 3
    return bool((highest < _DARK).mean() > 0.5 and (mean > 150).mean() < 0.1)


def find_border(planes: Sequence[NDArray[np.uint8]]) -> Mask:
    """Scanner borders: px black all the way from an edge of the picture, bool, shape [height, width]."""
    black: Mask = np.maximum.reduce(planes) < _BORDER_BLACK
    border: Mask = np.zeros_like(black)
    edges = (black[0], black[-1], black[:, 0], black[:, -1])
    if not any(edge.any() for edge in edges):
        return np.asarray(border)
    for axis in (0, 1):
        border |= np.logical_and.accumulate(black, axis=axis)
        border |= np.flip(np.logical_and.accumulate(np.flip(black, axis), axis=axis), axis)
    return grow(border, 2)


def estimate_glass(picture: Picture, border: Mask) -> _Floats:
    """The colour of the empty glass, float32 RGB, shape [3]; white where no glass is seen.

    Args:
        picture: uint8, shape [height, width, 3].
        border: which px can't be glass, bool, shape [height, width].
    """
    step = max(1, int((border.size / _GLASS_SAMPLES) ** 0.5))
    bands = cut_bands(picture.shape, 1, step)
    few = np.concatenate([_find_smooth(picture[outer])[inner][::step, ::step] for outer, inner, _ in bands])
    few &= ~border[::step, ::step]
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


def find_folds(picture: Picture, glass: _Floats, tissue: Mask) -> Mask:
    """Folds: solid tissue, twice as dense as the slide's own, whose saturation exceeds its brightness.

    Saturation minus brightness as in Bautista & Yagi 2009 (Detection of tissue folds in whole slide images), with a
    fixed cut, on the picture brought to at most 512 px, where cells have vanished.

    Args:
        picture: uint8, shape [height, width, 3].
        glass: its RGB, float32, shape [3].
        tissue: bool, shape [height, width].

    Returns:
        bool, shape [height, width]; part of the tissue.
    """
    factor = math.ceil(max(tissue.shape) / _FOLD_SIDE)
    small = reduce_picture(picture, factor)
    offset = factor // 2 if min(tissue.shape) > factor // 2 else 0
    held = tissue[offset::factor, offset::factor]
    held = np.pad(held, [(0, side - of) for side, of in zip(small.shape[:2], held.shape, strict=True)])
    if not held.any():
        return np.zeros_like(tissue)
    planes = _split(blur(small))
    densest = _measure_density(planes, glass)[0]
    highest, lowest = _highest(planes).astype(np.float32), _lowest(planes).astype(np.float32)
    excess = (highest - lowest) / np.maximum(highest, 1) - highest / 255
    double = held & (excess > 0.05) & (densest >= min(2 * float(np.median(densest[held])), 250))
    double = grow(shrink(grow(double, 1), 2), 2)
    wide = double.repeat(factor, axis=0).repeat(factor, axis=1)[: tissue.shape[0], : tissue.shape[1]]
    return np.asarray(wide & tissue)


def _find_bright(signal: NDArray[np.uint8], method: str, threshold: float) -> Mask:
    few = signal[::3, ::3]
    black = float(np.percentile(few, 25))
    if method == "all":
        return np.ones_like(signal, bool)
    if method == "fixed":
        return clean(signal > black + threshold)
    if method == "otsu":
        return clean(signal > _otsu(signal.ravel()))
    below = few[few <= black]
    noise = float(black - below.mean()) if below.size else 0.0
    return clean(np.asarray(signal > black + max(8.0, 5 * noise)))


def _otsu(values: NDArray[np.uint8]) -> float:
    """The threshold of the greatest variance between the two classes (Otsu 1979, eq. 18)."""
    counts = np.zeros(256)
    for start in range(0, len(values), 1 << 17):
        counts += np.bincount(values[start : start + (1 << 17)], minlength=256)
    below, total = np.cumsum(counts), counts.sum()
    mass = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass[-1] * below - mass * total) ** 2 / (below * (total - below))
    return float(np.nanargmax(between)) if np.isfinite(between).any() else 255.0


def _measure_density(planes: Planes, glass: _Floats) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Optical density (natural logarithm, in steps of 1 / 200) of the densest channel, and its lead on the least."""
    density = []
    for plane, level in zip(planes, glass, strict=True):
        table = np.log((float(level) + 1) / np.arange(1, 257)) * _DENSITY_STEPS
        steps = np.clip(table, 0, 255).round().astype(int).tolist()
        density.append(np.asarray(Image.fromarray(plane).point(steps)))
    densest = _highest(density)
    return densest, np.asarray(densest - _lowest(density))


def _split(picture: Picture) -> Planes:
    red, green, blue = (np.asarray(plane) for plane in Image.fromarray(picture).split())
    return red, green, blue


def _highest(planes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.asarray(np.maximum(np.maximum(planes[0], planes[1]), planes[2]))


def _lowest(planes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.asarray(np.minimum(np.minimum(planes[0], planes[1]), planes[2]))
