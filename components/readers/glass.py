"""Which blocks of a flat slide are bare glass, told by how few bytes they take, so that they need not be fetched.

A block without anything in it compresses to the same few bytes wherever it lies. Blocks are looked at in cells of 4 × 4:
of the small ones in a cell the largest, the most doubtful, is fetched and stands for the others, which are left unread if
it is plain and has the glass's colour. Small blocks beside a larger one are always read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from components.readers.protocol import Picture

CELL = 4
# Glass takes up to so many times the bytes of the tenth smallest block in a hundred.
_SPREAD = 1.3
# Where leaving glass out saves less than this share of the other blocks' bytes, everything is read.
_LEAST_SAVED = 0.1
_PLAIN = 14
_LIKE = 5

Places = NDArray[np.intp]


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
    for top in range(0, counts.shape[0], CELL):
        for left in range(0, counts.shape[1], CELL):
            inside = np.where(spare, counts, -1)[top : top + CELL, left : left + CELL]
            if inside.max() > 0:
                row, column = np.unravel_index(int(inside.argmax()), inside.shape)
                samples.append((top + int(row), left + int(column)))
    for place in samples:
        spare[place] = False
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
    means = {place: picture.reshape(-1, 3).mean(axis=0) for place, picture in looks.items()}
    glass = np.median(np.array(list(means.values())), axis=0)
    for top in range(0, spare.shape[0], CELL):
        for left in range(0, spare.shape[1], CELL):
            cell = spare[top : top + CELL, left : left + CELL]
            if cell.any() and not _is_glass(sample_of(looks, top, left), glass):
                cell[:] = False


def sample_of(looks: Mapping[tuple[int, int], Picture], row: int, column: int) -> Picture | None:
    """The picture that stands for the block in `row` and `column`."""
    top, left = row // CELL * CELL, column // CELL * CELL
    places = ((top + i, left + j) for i in range(CELL) for j in range(CELL))
    return next((looks[place] for place in places if place in looks), None)


def _is_glass(picture: Picture | None, glass: NDArray[np.float64]) -> bool:
    if picture is None:
        return False
    pixels = picture.reshape(-1, 3)
    plain = (pixels.max(axis=0).astype(int) - pixels.min(axis=0) <= _PLAIN).all()
    return bool(plain and (np.abs(pixels.mean(axis=0) - glass) <= _LIKE).all())
