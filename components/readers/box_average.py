"""A picture made smaller while it streams by, in memory of a few rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class BoxAverage:
    """Averages boxes of px into px; the picture comes in strips, from the top.

    Boxes have whole px: where the factor is no whole number, some are one px wider than others.

    Args:
        width, height: px of the picture that comes.
        factor: px of it a px of the result, at least 1.
        out_width, out_height: px of the result.
    """

    def __init__(self, width: int, height: int, factor: float, out_width: int, out_height: int) -> None:
        self._columns, self._counts = _bounds(width, factor, out_width)
        self._rows, self._heights = _bounds(height, factor, out_height)
        self._row_sum = np.zeros((width, 3), np.uint32)
        self._seen = 0
        self._done = 0
        self._whole = int(factor) if factor == int(factor) else 0
        self._rest = np.empty((0, width, 3), np.uint8)
        self._height = height
        self.picture = np.full((out_height, out_width, 3), 255, np.uint8)

    def add(self, strip: NDArray[np.uint8]) -> None:
        """Takes the next rows: uint8, shape [rows, width, 3]."""
        top, stop = self._seen, self._seen + len(strip)
        self._seen = stop
        if self._whole:
            self._reduce(strip)
            return
        while top < stop and self._done < len(self._rows):
            end = int(self._rows[self._done] + self._heights[self._done])
            here = min(end, stop)
            if here > top:
                self._row_sum += strip[top - stop : here - stop or None].sum(axis=0, dtype=np.uint32)
            top = here
            if here < end:
                return
            self._finish_row()

    def _reduce(self, strip: NDArray[np.uint8]) -> None:
        """Averages boxes of a whole number of px, many rows at once; the boxes at the right and lower edge are cut."""
        if len(self._rest):
            strip = np.concatenate([self._rest, strip])
        ready = len(strip) if self._seen >= self._height else len(strip) // self._whole * self._whole
        self._rest = strip[ready:].copy()
        if not ready:
            return
        reduced = strip[:ready]
        if self._whole > 1:
            reduced = np.asarray(Image.fromarray(np.ascontiguousarray(reduced)).reduce(self._whole))
        rows = self.picture[self._done : self._done + len(reduced)]
        columns = min(rows.shape[1], reduced.shape[1])
        rows[:, :columns] = reduced[: len(rows), :columns]
        rows[:, columns:] = rows[:, columns - 1 : columns]
        self._done += len(rows)
        if self._seen >= self._height:
            self.picture[self._done :] = self.picture[self._done - 1]

    def _finish_row(self) -> None:
        sums = np.add.reduceat(self._row_sum, self._columns, axis=0)
        counts = self._counts[:, None] * self._heights[self._done]
        self.picture[self._done] = (sums + counts // 2) // counts
        self._row_sum[:] = 0
        self._done += 1


def _bounds(length: int, factor: float, out_length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each box begins, and how many px it has: one at least."""
    starts = np.minimum(np.floor(np.arange(out_length) * factor + 0.5).astype(np.int64), length - 1)
    ends = np.append(starts[1:], length)
    return starts, np.maximum(ends - starts, 1)
