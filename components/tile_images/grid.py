"""Where tiles lie, how much tissue each holds, which are kept, and how they are cut into regions."""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray

from components.records.provenance import derive_seed
from components.tile_images.parameters import TilingParameters
from components.tile_images.scale import Scale

TILE = np.dtype([("x", "<i4"), ("y", "<i4"), ("tissue", "<f4"), ("label", "i1")])
NO_LABEL = -1
Tiles = NDArray[np.void]
# Px of a mask, and tiles, that are looked at together.
_BAND_PX, _BAND_TILES = 1 << 17, 1 << 14


def lay_axis(length: int, px: int, stride: int, scale: float) -> NDArray[np.int64]:
    """Level-0 corners along one axis of `length` level-0 px: every tile lies inside, a rest at the end is left out."""
    side = round(px * scale)
    last = min(length / scale + 1e-6 - px, (length - side) / scale + 1e-6)
    if last < 0:
        return np.zeros(0, np.int64)
    corners = np.rint(np.arange(math.floor(last / stride) + 1) * stride * scale).astype(np.int64)
    return np.asarray(corners[corners + side <= length])


def lay_grid(width: int, height: int, scale: Scale, parameters: TilingParameters) -> Tiles:
    """Every whole tile of a slide in rows from the upper-left corner, tissue 0 and no label.

    Args:
        width: level-0 px.
        height: level-0 px.
        scale: what a tile covers.
        parameters: of the run.

    Returns:
        Records of `TILE`, shape [tiles].
    """
    stride = parameters.stride or parameters.tile_px
    xs = lay_axis(width, parameters.tile_px, stride, scale.scale)
    ys = lay_axis(height, parameters.tile_px, stride, scale.scale)
    tiles = np.zeros(len(xs) * len(ys), TILE)
    tiles["x"] = np.tile(xs, len(ys))
    tiles["y"] = np.repeat(ys, len(xs))
    tiles["label"] = NO_LABEL
    return tiles


def measure_share(mask: NDArray[np.bool_], downsample: float, tiles: Tiles, side: int) -> NDArray[np.float32]:
    """The share of each tile that a mask covers, 0–1, through integral images of bands of it.

    Args:
        mask: bool, shape [height, width], `downsample` level-0 px a px.
        downsample: of the mask.
        tiles: records of `TILE`, in rows from the top.
        side: level-0 px of a tile.
    """
    shares = np.empty(len(tiles), np.float32)
    width, start = mask.shape[1], 0
    while start < len(tiles):
        band = max(_BAND_PX // width * downsample, side)
        stop = int(np.searchsorted(tiles["y"], tiles["y"][start] + band))
        stop = min(max(stop, start + 1), start + _BAND_TILES)
        shares[start:stop] = _measure_band(mask, downsample, tiles[start:stop], side)
        start = stop
    return shares


def _measure_band(mask: NDArray[np.bool_], downsample: float, tiles: Tiles, side: int) -> NDArray[np.float64]:
    height, width = mask.shape
    left = np.clip(np.floor(tiles["x"] / downsample + 0.5).astype(np.int64), 0, width - 1)
    top = np.clip(np.floor(tiles["y"] / downsample + 0.5).astype(np.int64), 0, height - 1)
    right = np.clip(np.floor((tiles["x"] + side) / downsample + 0.5).astype(np.int64), left + 1, width)
    bottom = np.clip(np.floor((tiles["y"] + side) / downsample + 0.5).astype(np.int64), top + 1, height)
    first, last = int(top.min()), int(bottom.max())
    sums = np.zeros((last - first + 1, width + 1), np.int32)
    np.cumsum(np.cumsum(mask[first:last], axis=0, dtype=np.int32), axis=1, out=sums[1:, 1:])
    top, bottom = top - first, bottom - first
    covered = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(covered / ((bottom - top) * (right - left)))


def mark_labels(areas: NDArray[np.float64], side: int, min_lesion: float) -> NDArray[np.int8]:
    """1 where enough of a tile is marked, else 0.

    Args:
        areas: level-0 px² of each tile that the mask marks.
        side: level-0 px of a tile.
        min_lesion: 0 for anything at all; below 1 the least share of the tile; from 1 on the least level-0 px.
    """
    least = min_lesion * side * side if min_lesion < 1 else min_lesion
    return np.asarray((areas > 0) & (areas >= least * (1 - 1e-9)), np.int8)


def sample_tiles(tiles: Tiles, parameters: TilingParameters, image_id: str) -> Tiles:
    """At most `max_tiles_per_slide` tiles, in their order."""
    most = parameters.max_tiles_per_slide
    if most == 0 or len(tiles) <= most:
        return tiles
    if parameters.tile_sampling == "even":
        kept = np.arange(most) * len(tiles) // most
    else:
        seed = derive_seed(parameters.seed, "tile_sampling", image_id)
        kept = np.array(sorted(random.Random(seed).sample(range(len(tiles)), most)))
    return tiles[kept]


def count_regions(tiles: int, parameters: TilingParameters) -> int:
    """How many regions, and so parts, a slide of that many tiles has."""
    return -(-tiles // parameters.tiles_per_region)


def cut_region(tiles: Tiles, index: int, parameters: TilingParameters) -> Tiles:
    """The tiles of one region: a run of the slide's tiles, of about equal length in every region."""
    regions = count_regions(len(tiles), parameters)
    return tiles[index * len(tiles) // regions : (index + 1) * len(tiles) // regions]
