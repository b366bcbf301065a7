"""Lesions from a mask, and detections from a map of probabilities: what FROC is computed from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from components.statistics.metrics import Array

MERGE_UM = 75.0
ITC_UM = 275.0


def label_lesions(
    mask: NDArray[Any], mpp: float, *, merge_um: float = MERGE_UM, itc_um: float = 0.0
) -> tuple[NDArray[np.int32], frozenset[int]]:
    """Numbers the lesions of a mask, as CAMELYON16's evaluation does.

    Marks nearer than `merge_um` to each other are one lesion: the mask grows by half of that, holes are filled, and
    what touches, also over a corner, is one. CAMELYON16 counts those under 275 µm (`ITC_UM`) as isolated tumour cells.

    Args:
        mask: [h, w], anything but 0 is lesion.
        mpp: µm a pixel of the mask.
        merge_um: 0 to leave marks as they are.
        itc_um: lesions whose major axis is shorter are to be ignored; 0 for none.

    Returns:
        int32 [h, w] with lesions from 1; the numbers of those to ignore.
    """
    marked = np.asarray(mask) != 0
    if merge_um > 0 and marked.any():
        marked = ndimage.distance_transform_edt(~marked) < merge_um / (2 * mpp)
        marked = ndimage.binary_fill_holes(marked)
    labels, count = ndimage.label(marked, structure=np.ones((3, 3), int))
    boxes = ndimage.find_objects(labels)
    small = [at for at in range(1, count + 1) if major_axis(labels[boxes[at - 1]] == at) * mpp < itc_um]
    return np.asarray(labels, np.int32), frozenset(small)


def major_axis(region: NDArray[np.bool_]) -> float:
    """Major axis, px, of the ellipse that has the region's second moments."""
    places = np.argwhere(region).astype(np.float64)
    if not len(places):
        return 0.0
    spread = np.cov(places.T, bias=True)
    return float(4 * np.sqrt(max(0.0, np.linalg.eigvalsh(spread)[-1])))


def find_detections(
    probabilities: NDArray[np.floating[Any]], *, radius: float, threshold: float = 0.0, downsample: float = 1.0
) -> tuple[Array, Array, Array]:
    """Detections by non-maximum suppression: the highest pixel, everything within `radius` of it out, and again.

    Args:
        probabilities: [h, w]; NaN where there is none.
        radius: px of the map; 0 keeps every pixel.
        threshold: pixels must lie above it.
        downsample: level-0 px a pixel of the map.

    Returns:
        x and y of the pixels' centres in level-0 px, and their values; each [n], the highest first, of equal ones the
        upper left.
    """
    values = np.nan_to_num(np.asarray(probabilities, np.float64), nan=-np.inf)
    rows, columns = np.nonzero(values > threshold)
    order = np.argsort(-values[rows, columns], kind="stable")
    free = np.ones(values.shape, bool)
    reach = int(np.floor(radius))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = down**2 + right**2 <= radius**2
    kept: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if not free[row, column]:
            continue
        kept.append((row, column))
        top, left = max(0, row - reach), max(0, column - reach)
        bottom, end = min(values.shape[0], row + reach + 1), min(values.shape[1], column + reach + 1)
        part = disc[top - row + reach : bottom - row + reach, left - column + reach : end - column + reach]
        free[top:bottom, left:end] &= ~part
    places = np.array(kept, np.int64).reshape(-1, 2)
    y, x = ((places[:, axis] + 0.5).astype(np.float64) * downsample for axis in (0, 1))
    return x, y, values[places[:, 0], places[:, 1]]
