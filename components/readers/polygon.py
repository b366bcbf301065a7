"""Regions drawn as polygons: how much of each tile they cover, to the pixel's fraction, however large the slide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_MOST_CELLS = 1 << 21
# px, and px²: what is less is rounding
_LEVEL, _LEAST_AREA = 1e-9, 1e-6


@dataclass(frozen=True)
class Polygon:
    """An outer ring and its holes, each float64 [points, 2] of x and y in level-0 px.

    Attributes:
        excluded: what it covers is taken away from all others.
    """

    outer: Floats
    holes: tuple[Floats, ...] = ()
    excluded: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        (left, top), (right, bottom) = self.outer.min(axis=0), self.outer.max(axis=0)
        return float(left), float(top), float(right), float(bottom)


@dataclass(frozen=True)
class Slabs:
    """What is covered between two heights, as trapezoids with level upper and lower sides.

    Attributes:
        left, right: x of both ends of the upper and of the lower side, float64 [2, n].
        height: float64 [n].
    """

    left: Floats
    right: Floats
    height: Floats

    def measure(self, begin: Floats, width: float) -> Floats:
        """The area between `begin` and `begin + width` of each column, float64 [columns]."""
        begin = begin[:, None]
        return np.asarray(
            (_mean_clipped(self.right, begin, width) - _mean_clipped(self.left, begin, width)) @ self.height
        )


def _mean_clipped(ends: Floats, begin: Floats, width: float) -> Floats:
    """Mean of x - begin, clipped to 0…width, where x goes evenly from ends[0] to ends[1]; [columns, n]."""
    first, last = ends[0] - begin, ends[1] - begin
    run = last - first
    level = np.abs(run) < _LEVEL
    integral = _integral(last, width) - _integral(first, width)
    middle = np.clip((first + last) / 2, 0, width)
    return np.where(level, middle, integral / np.where(level, 1.0, run))


def _integral(x: Floats, width: float) -> Floats:
    return np.asarray(np.clip(x, 0, width) ** 2 / 2 + width * np.maximum(x - width, 0))


class Regions:
    """The union of polygons less what is excluded; a ring covers what it winds around.

    The plane is cut at every corner into slabs, in which edges are straight and what is covered is trapezoids: areas
    are exact. Where polygons may cross each other, slabs are a px high at most.
    """

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        starts, ends, rings = [], [], []
        self._polygon_of: list[int] = []
        self._is_hole: list[bool] = []
        self._excluded = [polygon.excluded for polygon in polygons]
        for number, polygon in enumerate(polygons):
            for at, ring in enumerate((polygon.outer, *polygon.holes)):
                starts.append(ring)
                ends.append(np.roll(ring, -1, axis=0))
                rings.append(np.full(len(ring), len(self._polygon_of), np.int64))
                self._polygon_of.append(number)
                self._is_hole.append(at > 0)
        start, end = np.concatenate([np.zeros((0, 2)), *starts]), np.concatenate([np.zeros((0, 2)), *ends])
        ring = np.concatenate([np.zeros(0, np.int64), *rings])
        kept = start[:, 1] != end[:, 1]
        start, end, self._ring = start[kept], end[kept], ring[kept]
        down = end[:, 1] > start[:, 1]
        self._turn = np.where(down, 1, -1)
        upper, lower = np.where(down[:, None], start, end), np.where(down[:, None], end, start)
        self._x, self._top, self._bottom = upper[:, 0], upper[:, 1], lower[:, 1]
        self._slope = (lower[:, 0] - upper[:, 0]) / (lower[:, 1] - upper[:, 1])

    def measure(self, x: NDArray[np.int64], y: NDArray[np.int64], side: float) -> Floats:
        """Level-0 px² covered of each square tile with the upper-left corners (`x`, `y`), float64 [n].

        More than 0 where a tile and the regions share an area, however thin; 0 where they share an edge only.
        """
        areas = np.zeros(len(x))
        order = np.argsort(y, kind="stable")
        rows, begins = np.unique(y[order], return_index=True)
        for row, chosen in zip(rows.tolist(), np.split(order, begins[1:]), strict=True):
            slabs = self.scan(float(row), float(row) + side)
            pieces = len(slabs.height)
            step = max(1, _MOST_CELLS // max(1, pieces))
            for at in range(0, len(chosen) if pieces else 0, step):
                some = chosen[at : at + step]
                areas[some] = slabs.measure(x[some].astype(np.float64), side)
        return np.where(areas > _LEAST_AREA, areas, 0.0)

    def draw(self, width: int, height: int, downsample: float) -> NDArray[np.bool_]:
        """The regions over a slide of `width` × `height` level-0 px: each px is marked that they share an area with.

        Returns:
            bool, shape [ceil(height / downsample), ceil(width / downsample)].
        """
        marked = np.zeros((int(-(-height // downsample)), int(-(-width // downsample))), bool)
        if not len(self._top):
            return marked
        first = max(0, int(self._top.min() // downsample))
        last = min(len(marked), int(self._bottom.max() // downsample) + 1)
        for row in range(first, last):
            slabs = self.scan(row * downsample, (row + 1) * downsample)
            begins = np.floor(slabs.left.min(axis=0) / downsample + _LEVEL).astype(np.int64)
            ends = np.ceil(slabs.right.max(axis=0) / downsample - _LEVEL).astype(np.int64)
            for begin, end in set(zip(begins.tolist(), ends.tolist(), strict=True)):
                marked[row, max(begin, 0) : max(end, 0)] = True
        return marked

    def scan(self, top: float, bottom: float) -> Slabs:
        """What is covered between two heights."""
        near = np.flatnonzero((self._top < bottom) & (self._bottom > top))
        if not len(near):
            return Slabs(np.zeros((2, 0)), np.zeros((2, 0)), np.zeros(0))
        upper, lower = np.maximum(self._top[near], top), np.minimum(self._bottom[near], bottom)
        rings = self._ring[near]
        one_ring = bool((rings == rings[0]).all()) and not self._excluded[self._polygon_of[rings[0]]]
        more = np.zeros(0) if one_ring else np.arange(np.ceil(top), bottom)
        cuts = np.unique(np.concatenate([[top, bottom], upper, lower, more]))
        first, last = np.searchsorted(cuts, upper), np.searchsorted(cuts, lower)
        edge = np.repeat(np.arange(len(near)), last - first)
        slab = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edge]
        of = near[edge]
        ends = self._x[of] + (np.stack([cuts[slab], cuts[slab + 1]]) - self._top[of]) * self._slope[of]
        order = np.lexsort((ends.sum(axis=0), slab))
        ends, slab, of = ends[:, order], slab[order], of[order]
        if one_ring:
            begins = np.flatnonzero(np.cumsum(self._turn[of]) != 0)
            pairs = np.stack([begins, begins + 1], axis=1)
        else:
            pairs = np.array(list(self._sweep(of)), np.int64).reshape(-1, 2)
        return Slabs(ends[:, pairs[:, 0]], ends[:, pairs[:, 1]], np.diff(cuts)[slab[pairs[:, 0]]])

    def _sweep(self, edges: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Where each covered piece begins and ends among the edges, which come in order along each slab."""
        winding: dict[int, int] = {}
        within: dict[int, bool] = {}
        holes: dict[int, int] = {}
        count = {False: 0, True: 0}
        start = 0
        for at, (turn, ring) in enumerate(zip(self._turn[edges].tolist(), self._ring[edges].tolist(), strict=True)):
            polygon = self._polygon_of[ring]
            excluded = self._excluded[polygon]
            was = winding.get(ring, 0)
            winding[ring] = was + turn
            if (was != 0) == (was + turn != 0):
                continue
            before = count[False] > 0 and count[True] == 0
            counted = within.get(polygon, False) and not holes.get(polygon, 0)
            if self._is_hole[ring]:
                holes[polygon] = holes.get(polygon, 0) + (1 if was == 0 else -1)
            else:
                within[polygon] = was == 0
            counts = within.get(polygon, False) and not holes.get(polygon, 0)
            count[excluded] += int(counts) - int(counted)
            after = count[False] > 0 and count[True] == 0
            if after and not before:
                start = at
            elif before and not after:
                yield start, at
