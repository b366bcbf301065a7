"""Which blocks of a flat slide are bare glass, told by how few bytes they take, so that they need not be fetched.

A block without anything in it compresses to the same few bytes wherever it lies. Blocks are looked at in cells of 4 × 4
(or as many as give about a thousand cells): of the small ones in a cell the largest, the most doubtful, is fetched and
stands for the others, which are left unread if it is plain and has the glass's colour. Small blocks beside a larger one
are always read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from components.readers.protocol import Picture

_CELL = 4
_CELLS = 1024
# Glass takes up to so many times the bytes of the tenth smallest block in a hundred.
_SPREAD = 1.3
# Where leaving glass out saves less than this share of the other blocks' bytes, everything is read.
_LEAST_SAVED = 0.1
_PLAIN = 14
_LIKE = 5

Places = NDArray[np.intp]


def cell_side(shape: tuple[int, ...]) -> int:
    """Blocks a side of a cell, for so many rows and columns of blocks."""
    return max(_CELL, math.ceil(math.sqrt(shape[0] * shape[1] / _CELLS)))


def choose_samples(byte_counts: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], list[tuple[int, int]]]:
    """Which blocks may be left unread, and the (row, column) of those that stand for them.

    Args:
        byte_counts: of the blocks, 0 where the file leaves one out; uint64, shape [rows, columns].

    Returns:
        bool, shape [rows, columns]: nothing where it would save little; and the samples, in order, none of them marked.
    """
    counts = byte_counts.astype(np.int64)
    spare = np.zeros(counts.shape, bool)
    if not counts.any():
        return spare, []
    small = counts <= _SPREAD * np.quantile(counts[counts > 0], 0.1)
    padded = np.pad(small, 1, constant_values=True)
    spare = small & (counts > 0)
    for row in range(3):
        for column in range(3):
            spare &= padded[row : row + counts.shape[0], column : column + counts.shape[1]]
    samples = []
    marked, cell = np.where(spare, counts, -1), cell_side(counts.shape)
    for top in range(0, counts.shape[0], cell):
        for left in range(0, counts.shape[1], cell):
            inside = marked[top : top + cell, left : left + cell]
            if inside.max() > 0:
                place = divmod(int(inside.argmax()), inside.shape[1])
                samples.append((top + place[0], left + place[1]))
    for at in samples:
        spare[at] = False
    if counts[spare].sum() < _LEAST_SAVED * counts[~spare].sum():
        return np.zeros(counts.shape, bool), []
    return spare, samples


def confirm_glass(spare: NDArray[np.bool_], looks: Mapping[tuple[int, int], Picture]) -> None:
    """Clears the mark of blocks whose sample is not plain, or not of the glass's colour.

    Args:
        spare: as `choose_samples` returns it; changed in place.
        looks: the picture of each sample, uint8, shape [height, width, 3]; one that can't be decoded is missing.
    """
    if not looks:
        spare[:] = False
        return
    glass = np.median([picture.reshape(-1, 3).mean(axis=0) for picture in looks.values()], axis=0)
    side = cell_side(spare.shape)
    by_cell = sort_into_cells(looks, side)
    for top in range(0, spare.shape[0], side):
        for left in range(0, spare.shape[1], side):
            cell = spare[top : top + side, left : left + side]
            if cell.any() and not _is_glass(by_cell.get((top // side, left // side)), glass):
                cell[:] = False


def sort_into_cells(looks: Mapping[tuple[int, int], Picture], side: int) -> dict[tuple[int, int], Picture]:
    """The sample of each cell, by the cell's row and column."""
    return {(row // side, column // side): picture for (row, column), picture in looks.items()}


def _is_glass(picture: Picture | None, glass: NDArray[np.float64]) -> bool:
    if picture is None:
        return False
    pixels = picture.reshape(-1, 3)
    plain = (pixels.max(axis=0).astype(int) - pixels.min(axis=0) <= _PLAIN).all()
    return bool(plain and (np.abs(pixels.mean(axis=0) - glass) <= _LIKE).all())
